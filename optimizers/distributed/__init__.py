"""Many workers: what they send each other is compressed, rare, or late."""

from .cd_prox_sgt import cd_prox_sgt
from .co2 import co2
from .delayed_nesterov import (
    delayed_nesterov,
    dynamic_local_steps,
    scale_by_delayed_nesterov,
    staleness_weight,
)
from .demo import demo
from .econtrol import econtrol, scale_by_econtrol
from .error_feedback import error_feedback, error_feedback_14, scale_by_ef21
from .just_one_byte import just_one_byte
from .local_sgd import diloco, local_sgd
from .masha import masha1, masha2
from .power_sgd import power_sgd, scale_by_power_sgd
from .proxskip_vip import fedgda_gt, proxskip_vip

__all__ = [
    "cd_prox_sgt",
    "co2",
    "delayed_nesterov",
    "demo",
    "diloco",
    "dynamic_local_steps",
    "econtrol",
    "error_feedback",
    "error_feedback_14",
    "fedgda_gt",
    "just_one_byte",
    "local_sgd",
    "masha1",
    "masha2",
    "power_sgd",
    "proxskip_vip",
    "scale_by_delayed_nesterov",
    "scale_by_econtrol",
    "scale_by_ef21",
    "scale_by_power_sgd",
    "staleness_weight",
]

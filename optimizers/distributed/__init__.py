"""Many workers: what they send each other is compressed, rare, or late."""

from .demo import demo
from .econtrol import econtrol, scale_by_econtrol
from .error_feedback import error_feedback, error_feedback_14, scale_by_ef21
from .power_sgd import power_sgd, scale_by_power_sgd

__all__ = [
    "demo",
    "econtrol",
    "error_feedback",
    "error_feedback_14",
    "power_sgd",
    "scale_by_econtrol",
    "scale_by_ef21",
    "scale_by_power_sgd",
]

"""Adam, and what changes a part of it."""

from ...transforms import scale_by_adam
from .adabound import adabound, scale_by_adabound
from .adam import adam
from .adam_critical_momenta import adam_critical_momenta, scale_by_critical_momenta
from .adamax import adamax, scale_by_adamax
from .adamp import adamp, scale_by_adamp
from .adamw import adamw
from .adan import adan, scale_by_adan
from .ademamix import ademamix, scale_by_ademamix
from .adopt import adopt, scale_by_adopt
from .amsbound import amsbound
from .amsgrad import amsgrad, scale_by_amsgrad
from .diffgrad import diffgrad, scale_by_diffgrad
from .lamb import lamb
from .mup_adam import mup_adam, scale_by_mup_adam
from .nadam import nadam, nadamw
from .radam import radam, scale_by_radam
from .ranger21 import ranger21, scale_by_ranger21
from .simplified_ademamix import scale_by_simplified_ademamix, simplified_ademamix
from .yogi import scale_by_yogi, yogi

__all__ = [
    "adabound",
    "adam",
    "adam_critical_momenta",
    "adamax",
    "adamp",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsbound",
    "amsgrad",
    "diffgrad",
    "lamb",
    "mup_adam",
    "nadam",
    "nadamw",
    "radam",
    "ranger21",
    "scale_by_adabound",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adamp",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_critical_momenta",
    "scale_by_diffgrad",
    "scale_by_mup_adam",
    "scale_by_radam",
    "scale_by_ranger21",
    "scale_by_simplified_ademamix",
    "scale_by_yogi",
    "simplified_ademamix",
    "yogi",
]

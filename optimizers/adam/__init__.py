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
from .amsbound import amsbound
from .amsgrad import amsgrad, scale_by_amsgrad
from .diffgrad import diffgrad, scale_by_diffgrad
from .lamb import lamb
from .mup_adam import mup_adam, scale_by_mup_adam
from .ranger21 import ranger21, scale_by_ranger21

__all__ = [
    "adabound",
    "adam",
    "adam_critical_momenta",
    "adamax",
    "adamp",
    "adamw",
    "adan",
    "ademamix",
    "amsbound",
    "amsgrad",
    "diffgrad",
    "lamb",
    "mup_adam",
    "ranger21",
    "scale_by_adabound",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adamp",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_amsgrad",
    "scale_by_critical_momenta",
    "scale_by_diffgrad",
    "scale_by_mup_adam",
    "scale_by_ranger21",
]

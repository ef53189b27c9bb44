"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adabound import adabound, scale_by_adabound
from .adam import adam, scale_by_adam
from .adamax import adamax, scale_by_adamax
from .adan import adan, scale_by_adan
from .ademamix import ademamix, scale_by_ademamix
from .amsbound import amsbound
from .amsgrad import amsgrad, scale_by_amsgrad
from .diffgrad import diffgrad, scale_by_diffgrad
from .fadam import fadam, scale_by_fadam
from .gravity import gravity, scale_by_gravity
from .lamb import lamb
from .lars import lars
from .novograd import novograd, scale_by_novograd

__all__ = [
    "adabound",
    "adam",
    "adamax",
    "adan",
    "ademamix",
    "amsbound",
    "amsgrad",
    "diffgrad",
    "fadam",
    "gravity",
    "lamb",
    "lars",
    "novograd",
    "scale_by_adabound",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_amsgrad",
    "scale_by_diffgrad",
    "scale_by_fadam",
    "scale_by_gravity",
    "scale_by_novograd",
]

"""Adaptive methods whose second moment, or whose use of it, is not that of Adam."""

from .adabelief import adabelief, scale_by_adabelief
from .fadam import fadam, scale_by_fadam
from .innaprop import innaprop, scale_by_innaprop
from .laprop import laprop, scale_by_laprop
from .novograd import novograd, scale_by_novograd

__all__ = [
    "adabelief",
    "fadam",
    "innaprop",
    "laprop",
    "novograd",
    "scale_by_adabelief",
    "scale_by_fadam",
    "scale_by_innaprop",
    "scale_by_laprop",
    "scale_by_novograd",
]

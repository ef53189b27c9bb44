"""Adaptive methods whose second moment, or whose use of it, is not that of Adam."""

from .adabelief import adabelief, scale_by_adabelief
from .adagrad import adagrad, scale_by_rss
from .adagrad_norm import adagrad_norm, scale_by_sum_of_norms
from .fadam import fadam, scale_by_fadam
from .innaprop import innaprop, scale_by_innaprop
from .laprop import laprop, scale_by_laprop
from .madgrad import madgrad, scale_by_madgrad
from .novograd import novograd, scale_by_novograd
from .rmsprop import rmsprop, scale_by_rms

__all__ = [
    "adabelief",
    "adagrad",
    "adagrad_norm",
    "fadam",
    "innaprop",
    "laprop",
    "madgrad",
    "novograd",
    "rmsprop",
    "scale_by_adabelief",
    "scale_by_fadam",
    "scale_by_innaprop",
    "scale_by_laprop",
    "scale_by_madgrad",
    "scale_by_novograd",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_sum_of_norms",
]

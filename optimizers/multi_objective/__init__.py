"""Several losses at once: one update of many gradients."""

from .aligned_mtl import aligned_mtl
from .cagrad import cagrad
from .config import config
from .dualproj import dualproj
from .fish import fish
from .graddrop import graddrop
from .imtl_g import imtl_g
from .m_config import m_config, scale_by_m_config
from .mgda import mgda
from .multi_adam import multi_adam, scale_by_multi_adam
from .nash_mtl import nash_mtl
from .pcgrad import pcgrad
from .random_weighting import random_weighting
from .upgrad import jacobian_descent, upgrad
from .weighted_sum import weighted_sum

__all__ = [
    "aligned_mtl",
    "cagrad",
    "config",
    "dualproj",
    "fish",
    "graddrop",
    "imtl_g",
    "jacobian_descent",
    "m_config",
    "mgda",
    "multi_adam",
    "nash_mtl",
    "pcgrad",
    "random_weighting",
    "scale_by_m_config",
    "scale_by_multi_adam",
    "upgrad",
    "weighted_sum",
]

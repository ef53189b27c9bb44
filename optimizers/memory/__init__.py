"""Methods that keep less than a state of two copies of the params."""

from .adafactor import adafactor, scale_by_adafactor
from .apollo import apollo, scale_by_apollo
from .apollo_mini import apollo_mini
from .coap import coap, scale_by_coap
from .dlrt import dlrt
from .fira import fira, scale_by_fira
from .frugal import frugal, scale_by_frugal
from .galore import galore, scale_by_galore
from .grass import grass, scale_by_grass
from .micro_adam import micro_adam, scale_by_micro_adam
from .online_subspace_descent import online_subspace_descent, scale_by_online_subspace_descent
from .sm3 import scale_by_sm3, sm3
from .subset_norm import scale_by_subset_norm, subset_norm
from .subspace_momentum import scale_by_subspace_momentum, subspace_momentum

__all__ = [
    "adafactor",
    "apollo",
    "apollo_mini",
    "coap",
    "dlrt",
    "fira",
    "frugal",
    "galore",
    "grass",
    "micro_adam",
    "online_subspace_descent",
    "scale_by_adafactor",
    "scale_by_apollo",
    "scale_by_coap",
    "scale_by_fira",
    "scale_by_frugal",
    "scale_by_galore",
    "scale_by_grass",
    "scale_by_micro_adam",
    "scale_by_online_subspace_descent",
    "scale_by_sm3",
    "scale_by_subset_norm",
    "scale_by_subspace_momentum",
    "sm3",
    "subset_norm",
    "subspace_momentum",
]

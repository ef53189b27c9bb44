"""Methods that keep less than a state of two copies of the params."""

from .adafactor import adafactor, scale_by_adafactor
from .apollo import apollo, scale_by_apollo
from .apollo_mini import apollo_mini
from .coap import coap, scale_by_coap
from .dlrt import dlrt
from .fira import fira, scale_by_fira
from .frugal import frugal, scale_by_frugal
from .galore import galore, scale_by_galore
from .global_sparse_momentum import global_sparse_momentum, keep_salient, magnitude_mask
from .grass import grass, scale_by_grass
from .hesso import hesso, structured_pruning
from .hesso_cric import hesso_cric
from .hspg import hspg
from .magnitude_pruning import magnitude_pruning
from .micro_adam import micro_adam, scale_by_micro_adam
from .online_subspace_descent import online_subspace_descent, scale_by_online_subspace_descent
from .sm3 import scale_by_sm3, sm3
from .sparse_momentum import sparse_momentum, sparse_training
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
    "global_sparse_momentum",
    "grass",
    "hesso",
    "hesso_cric",
    "hspg",
    "keep_salient",
    "magnitude_mask",
    "magnitude_pruning",
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
    "sparse_momentum",
    "sparse_training",
    "structured_pruning",
    "subset_norm",
    "subspace_momentum",
]

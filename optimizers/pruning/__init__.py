"""Methods that leave params sparse: entries or whole structures are pruned while they train."""

from .global_sparse_momentum import global_sparse_momentum, keep_salient, magnitude_mask
from .hesso import hesso, structured_pruning
from .hesso_cric import hesso_cric
from .hspg import hspg
from .magnitude_pruning import magnitude_pruning
from .sparse_momentum import sparse_momentum, sparse_training

__all__ = [
    "global_sparse_momentum",
    "hesso",
    "hesso_cric",
    "hspg",
    "keep_salient",
    "magnitude_mask",
    "magnitude_pruning",
    "sparse_momentum",
    "sparse_training",
    "structured_pruning",
]

"""Subspaces of gradients, and running a transformation inside one."""

from .bases import Basis, Coordinates, Switch, Tucker, project, residual, unproject
from .chosen import Selection, random_coordinates, selected_slices
from .correlated import correlation_aware_basis
from .descending import descending_basis
from .factored import (
    LowRank,
    at_low_rank,
    factored,
    from_matrix,
    lowrank_init,
    orthonormal,
    random_low_rank,
)
from .lengthening import lengthening
from .low_rank import Moments, in_subspace, low_rank
from .spanned import OneSide, Side, random_basis, sketched_basis, svd_basis
from .switched import BlockOrder, active_leaves
from .tucker import partial_tucker

__all__ = [
    "Basis",
    "BlockOrder",
    "Coordinates",
    "LowRank",
    "Moments",
    "OneSide",
    "Selection",
    "Side",
    "Switch",
    "Tucker",
    "active_leaves",
    "at_low_rank",
    "correlation_aware_basis",
    "descending_basis",
    "factored",
    "from_matrix",
    "in_subspace",
    "lengthening",
    "low_rank",
    "lowrank_init",
    "orthonormal",
    "partial_tucker",
    "project",
    "random_basis",
    "random_coordinates",
    "random_low_rank",
    "residual",
    "selected_slices",
    "sketched_basis",
    "svd_basis",
    "unproject",
]

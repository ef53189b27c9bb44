"""Subspaces of gradients, and running a transformation inside one."""

from .bases import Basis, Coordinates, Switch, project, residual, unproject
from .chosen import Selection, random_coordinates, selected_slices
from .descending import descending_basis
from .low_rank import Moments, in_subspace, low_rank
from .spanned import OneSide, Side, random_basis, sketched_basis, svd_basis
from .switched import BlockOrder, active_leaves

__all__ = [
    "Basis",
    "BlockOrder",
    "Coordinates",
    "Moments",
    "OneSide",
    "Selection",
    "Side",
    "Switch",
    "active_leaves",
    "descending_basis",
    "in_subspace",
    "low_rank",
    "project",
    "random_basis",
    "random_coordinates",
    "residual",
    "selected_slices",
    "sketched_basis",
    "svd_basis",
    "unproject",
]

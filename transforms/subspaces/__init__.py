"""Subspaces of gradients, and running a transformation inside one."""

from .low_rank import (
    Basis,
    BlockOrder,
    Coordinates,
    Side,
    Switch,
    active_leaves,
    low_rank,
    project,
    random_basis,
    random_coordinates,
    residual,
    svd_basis,
    unproject,
)

__all__ = [
    "Basis",
    "BlockOrder",
    "Coordinates",
    "Side",
    "Switch",
    "active_leaves",
    "low_rank",
    "project",
    "random_basis",
    "random_coordinates",
    "residual",
    "svd_basis",
    "unproject",
]

"""Subspaces of gradients, and running a transformation inside one."""

from .low_rank import (
    Basis,
    Coordinates,
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
    "Coordinates",
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

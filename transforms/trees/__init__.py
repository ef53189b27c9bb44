"""Whole trees: as one vector, spread over devices, drawn at random."""

from .random import (
    Distribution,
    draw_leaves,
    draw_like,
    draw_scalar,
    drawn_start,
    exponential,
    fold_key,
    random_key,
    stored_key,
)
from .vector import flatten_tree, unflatten_tree

__all__ = [
    "Distribution",
    "draw_leaves",
    "draw_like",
    "draw_scalar",
    "drawn_start",
    "exponential",
    "flatten_tree",
    "fold_key",
    "random_key",
    "stored_key",
    "unflatten_tree",
]

"""Convex sets that params are kept in: the nearest point of each, by one interface."""

from .applied import check_projection, keep_params_in, onto
from .sets import Ball, Box, HalfSpace, Simplex, ball, box, half_space, simplex

__all__ = [
    "Ball",
    "Box",
    "HalfSpace",
    "Simplex",
    "ball",
    "box",
    "check_projection",
    "half_space",
    "keep_params_in",
    "onto",
    "simplex",
]

"""Gradients of several objectives, stacked along a leading axis, and how one is made of them."""

from .gramian import (
    aggregate_by_gramian,
    gramian,
    largest_entries,
    largest_entry,
    weigh_by_gramian,
)
from .preferences import check_vector, vector_for
from .quadratic import (
    Solver,
    dual_cone_projection,
    nonnegative_qp,
    simplex_minimum_norm,
    symmetric_pseudo_inverse,
)
from .stacked import bare_array, draw_for_entries, draw_for_objectives, reduce_objectives, weigh

__all__ = [
    "Solver",
    "aggregate_by_gramian",
    "bare_array",
    "check_vector",
    "draw_for_entries",
    "draw_for_objectives",
    "dual_cone_projection",
    "gramian",
    "largest_entries",
    "largest_entry",
    "nonnegative_qp",
    "reduce_objectives",
    "simplex_minimum_norm",
    "symmetric_pseudo_inverse",
    "vector_for",
    "weigh",
    "weigh_by_gramian",
]

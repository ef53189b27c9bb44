"""What a step asks of the functions that `update` is given: `value_fn`, `grad_fn`."""

from .checks import array_closure, scalar_closure
from .gradient_at import gradient_at, gradient_here
from .mapped_tree import mapped_tree
from .other_loss import at_offset, distance_term, linear_term, plus, tilted, with_inputs

__all__ = [
    "array_closure",
    "at_offset",
    "distance_term",
    "gradient_at",
    "gradient_here",
    "linear_term",
    "mapped_tree",
    "plus",
    "scalar_closure",
    "tilted",
    "with_inputs",
]

"""What a step asks of the functions that `update` is given: `value_fn`, `grad_fn`."""

from .checks import array_closure, scalar_closure
from .gradient_at import gradient_at
from .mapped_tree import mapped_tree

__all__ = [
    "array_closure",
    "gradient_at",
    "mapped_tree",
    "scalar_closure",
]

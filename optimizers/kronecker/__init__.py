"""Methods with Kronecker-factored and other structured whole-matrix preconditioners."""

from .shampoo import scale_by_shampoo, shampoo

__all__ = [
    "scale_by_shampoo",
    "shampoo",
]

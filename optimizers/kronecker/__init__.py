"""Methods with Kronecker-factored and other structured whole-matrix preconditioners."""

from .distributed_shampoo import distributed_shampoo, scale_by_distributed_shampoo
from .shampoo import scale_by_shampoo, shampoo

__all__ = [
    "distributed_shampoo",
    "scale_by_distributed_shampoo",
    "scale_by_shampoo",
    "shampoo",
]

"""Variance reduction: gradients corrected by gradients at other points."""

from .mars import mars
from .mars_adamw import mars_adamw, scale_by_mars_adamw
from .mars_lion import mars_lion, scale_by_mars_lion
from .mars_shampoo import mars_shampoo, scale_by_mars_shampoo

__all__ = [
    "mars",
    "mars_adamw",
    "mars_lion",
    "mars_shampoo",
    "scale_by_mars_adamw",
    "scale_by_mars_lion",
    "scale_by_mars_shampoo",
]

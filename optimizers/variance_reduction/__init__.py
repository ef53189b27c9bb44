"""Variance reduction: gradients corrected by gradients at other points."""

from .mars import mars
from .mars_adamw import mars_adamw, scale_by_mars_adamw
from .mars_lion import mars_lion, scale_by_mars_lion
from .mars_shampoo import mars_shampoo, scale_by_mars_shampoo
from .multi_momentum import multi_momentum, scale_by_cluster_variance_reduction

__all__ = [
    "mars",
    "mars_adamw",
    "mars_lion",
    "mars_shampoo",
    "multi_momentum",
    "scale_by_cluster_variance_reduction",
    "scale_by_mars_adamw",
    "scale_by_mars_lion",
    "scale_by_mars_shampoo",
]

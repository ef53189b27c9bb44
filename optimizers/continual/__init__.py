"""Continual learning: new tasks without losing old ones, or the ability to learn."""

from .momentum_weight_interpolation import momentum_weight_interpolation
from .upgd import scale_by_upgd, upgd

__all__ = [
    "momentum_weight_interpolation",
    "scale_by_upgd",
    "upgd",
]

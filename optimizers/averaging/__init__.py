"""Averaging methods: evaluation weights are averages of the iterates."""

from .momentum_weight_interpolation import momentum_weight_interpolation

__all__ = [
    "momentum_weight_interpolation",
]

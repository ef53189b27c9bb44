"""Averaging methods: evaluation weights are averages of the iterates."""

from .momentum_weight_interpolation import (
    momentum_weight_interpolation,
)
from .schedule_free import (
    schedule_free,
    schedule_free_adamw,
    schedule_free_radam,
    schedule_free_sgd,
)

__all__ = [
    "momentum_weight_interpolation",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
]

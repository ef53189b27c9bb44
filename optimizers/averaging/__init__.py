"""Averaging: evaluation weights are averages of the iterates."""

from .lookahead import lookahead
from .polynomial_update import polynomial_average_update
from .schedule_free import (
    schedule_free,
    schedule_free_adamw,
    schedule_free_radam,
    schedule_free_sgd,
)
from .weight_average import polynomial_averaging, weight_average

__all__ = [
    "lookahead",
    "polynomial_average_update",
    "polynomial_averaging",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "weight_average",
]

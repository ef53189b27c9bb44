"""Averaging: evaluation weights are averages of the iterates."""

from .lookahead import lookahead
from .schedule_free import (
    schedule_free,
    schedule_free_adamw,
    schedule_free_radam,
    schedule_free_sgd,
)

__all__ = [
    "lookahead",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
]

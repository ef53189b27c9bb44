"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adam import adam, scale_by_adam
from .adamw import adamw

__all__ = [
    "adam",
    "adamw",
    "scale_by_adam",
]

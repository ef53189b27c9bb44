"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adam import adam, scale_by_adam

__all__ = [
    "adam",
    "scale_by_adam",
]

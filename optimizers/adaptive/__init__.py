"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adam import adam, scale_by_adam
from .adamp import adamp, scale_by_adamp
from .ranger21 import ranger21, scale_by_ranger21
from .spam import scale_by_spam, spam
from .stable_spam import scale_by_stable_spam, stable_spam

__all__ = [
    "adam",
    "adamp",
    "ranger21",
    "scale_by_adam",
    "scale_by_adamp",
    "scale_by_ranger21",
    "scale_by_spam",
    "scale_by_stable_spam",
    "spam",
    "stable_spam",
]

"""Clipping: bounds on gradients and steps, and methods made for spikes."""

from .clip_by_global_norm import clip_by_global_norm
from .coordinate_clipping import (
    coordinate_clipped_adam,
    coordinate_clipping,
    scale_by_coordinate_clipped_adam,
)
from .spam import scale_by_spam, spam
from .stable_spam import scale_by_stable_spam, stable_spam

__all__ = [
    "clip_by_global_norm",
    "coordinate_clipped_adam",
    "coordinate_clipping",
    "scale_by_coordinate_clipped_adam",
    "scale_by_spam",
    "scale_by_stable_spam",
    "spam",
    "stable_spam",
]

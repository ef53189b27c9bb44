"""Transformations of gradients that stand in front of an optimizer."""

from .clip_by_global_norm import (
    clip_by_global_norm,
)
from .coordinate_clipping import (
    coordinate_clipped_adam,
    coordinate_clipping,
    scale_by_coordinate_clipped_adam,
)
from .perpgrad import (
    perpgrad,
)

__all__ = [
    "clip_by_global_norm",
    "coordinate_clipped_adam",
    "coordinate_clipping",
    "perpgrad",
    "scale_by_coordinate_clipped_adam",
]

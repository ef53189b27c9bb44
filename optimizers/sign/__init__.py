"""Sign methods: the direction is a sign."""

from .c_lion import (
    c_lion,
    scale_by_c_lion,
)
from .lion import (
    lion,
    scale_by_lion,
)

__all__ = [
    "c_lion",
    "lion",
    "scale_by_c_lion",
    "scale_by_lion",
]

"""Sign methods: the direction is a sign."""

from .c_lion import (
    c_lion,
    scale_by_c_lion,
)
from .lion import (
    lion,
    scale_by_lion,
)
from .lion_k import (
    lion_k,
    scale_by_lion_k,
)

__all__ = [
    "c_lion",
    "lion",
    "lion_k",
    "scale_by_c_lion",
    "scale_by_lion",
    "scale_by_lion_k",
]

"""Low-rank methods: moments are kept in a projection of the gradient."""

from .frugal import (
    frugal,
    scale_by_frugal,
)
from .galore import (
    galore,
    scale_by_galore,
)

__all__ = [
    "frugal",
    "galore",
    "scale_by_frugal",
    "scale_by_galore",
]

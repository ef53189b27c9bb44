"""Low-rank methods: moments are kept in a projection of the gradient."""

from .galore import scale_by_galore

__all__ = [
    "scale_by_galore",
]

"""Sign methods: the direction is a sign."""

from .lion import lion, scale_by_lion

__all__ = [
    "lion",
    "scale_by_lion",
]

"""Several losses at once."""

from .multi_adam import multi_adam, scale_by_multi_adam

__all__ = [
    "multi_adam",
    "scale_by_multi_adam",
]

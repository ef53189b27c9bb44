"""Step-size rules: the learning rate comes from the loss or the path."""

from .momo import momo
from .polyak_momentum import polyak_momentum

__all__ = [
    "momo",
    "polyak_momentum",
]

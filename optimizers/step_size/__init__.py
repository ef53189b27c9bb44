"""Step-size rules: the learning rate comes from the loss or the path."""

from .momo import (
    momo,
)

__all__ = [
    "momo",
]

"""Momentum methods."""

from .sgd import scale_by_sgd, sgd
from .sgdw import sgdw

__all__ = [
    "scale_by_sgd",
    "sgd",
    "sgdw",
]

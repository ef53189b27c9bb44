"""Wrappers: methods that work around any other transformation."""

from .cautious import cautious
from .lookahead import lookahead

__all__ = [
    "cautious",
    "lookahead",
]

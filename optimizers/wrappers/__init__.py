"""Wrappers: methods that work around any other transformation."""

from .cautious import cautious
from .lookahead import lookahead
from .sign_of_gradient import sign_of_gradient

__all__ = [
    "cautious",
    "lookahead",
    "sign_of_gradient",
]

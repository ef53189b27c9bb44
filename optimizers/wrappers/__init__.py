"""Wrappers: methods that work around any other transformation."""

from .brake import brake
from .cautious import cautious
from .lookahead import lookahead
from .sign_of_gradient import sign_of_gradient
from .random_scaling import random_scaling
from .xgrad import weight_prediction, xgrad

__all__ = [
    "brake",
    "cautious",
    "lookahead",
    "sign_of_gradient",
    "random_scaling",
    "weight_prediction",
    "xgrad",
]

"""Games: two or more players descend on losses of their own."""

from .optimistic_amsgrad import optimistic_amsgrad, scale_by_optimistic_amsgrad
from .ttur import ttur

__all__ = [
    "optimistic_amsgrad",
    "scale_by_optimistic_amsgrad",
    "ttur",
]

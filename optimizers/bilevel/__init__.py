"""Bilevel problems: an upper loss at the minimum of a lower one, such as a validation loss."""

from .best_response import BestResponse
from .bilevel import BilevelState, bilevel
from .bo_rep import BoRepState, bo_rep
from .f2sa import F2saState, f2sa
from .hypergradients import (
    conjugate_gradient_hypergradient,
    ift_neumann,
    implicit_hypergradient,
    neumann_series,
    unrolled_hypergradient,
)
from .stepper import BilevelStepper
from .stn import StnState, stn

__all__ = [
    "BestResponse",
    "BilevelState",
    "BilevelStepper",
    "BoRepState",
    "F2saState",
    "StnState",
    "bilevel",
    "bo_rep",
    "conjugate_gradient_hypergradient",
    "f2sa",
    "ift_neumann",
    "implicit_hypergradient",
    "neumann_series",
    "stn",
    "unrolled_hypergradient",
]

"""The types of hyper-parameters: what an argument may be, for people, type checkers and programs.

An alias says what a checker accepts and, in its metadata, what the value must fulfil. Factories
annotate with them, `transformation` reads them:

    @transformation()
    def scale_by_adam(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8) -> Flow: ...

Whoever needs another interval writes it down: `Annotated[Hyperparameter, Interval(1.0, 2.0)]`.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import jax
import numpy as np
import optax
from jax.typing import DTypeLike

from .domains import DTypes, Functions, Interval, Keys, Masks, Static
from .signal import Signal

Scalar: TypeAlias = float | jax.Array | Signal
"""A number of one step: a constant, an array that may be traced, or a scalar signal."""

Hyperparameter: TypeAlias = Scalar | optax.Schedule
"""A number that may change from step to step: a `Scalar`, or a schedule (step -> value)."""

Integer: TypeAlias = int | jax.Array | Signal

Decay = Annotated[Hyperparameter, Interval(0.0, 1.0, high_open=True)]
"""The decay of an average, in [0, 1)."""
Fraction = Annotated[Hyperparameter, Interval(0.0, 1.0)]
"""A share, in [0, 1]."""
NonNegative = Annotated[Hyperparameter, Interval(0.0, math.inf)]
"""A number that is not negative."""
Positive = Annotated[Hyperparameter, Interval(0.0, math.inf, low_open=True)]
"""A number greater than 0."""
Number = Annotated[Hyperparameter, Interval(-math.inf, math.inf)]
"""Any real number."""
Count = Annotated[Integer, Interval(0, math.inf, integer=True)]
"""How many, from 0 on."""
Period = Annotated[Integer, Interval(1, math.inf, integer=True)]
"""Every how many steps, from 1 on."""
Size = Annotated[int, Static(), Interval(1, math.inf, integer=True)]
"""What sets shapes or the length of loops, from 1 on: a Python int, never an array."""
Axis = Annotated[int, Static(), Interval(-math.inf, math.inf, integer=True)]
"""An axis, counted from either end: a Python int."""

Key = Annotated[int | jax.Array | np.integer[Any], Keys()]
"""A seed, or a key of the caller's."""
DType = Annotated[DTypeLike | None, DTypes()]
"""In which dtype something is stored; None: the working precision."""
Mask = Annotated[Any, Masks()]
"""Which leaves: a tree of booleans (or a prefix), a function from params to one; None: all."""
Sampler = Annotated[Callable[..., Any] | None, Functions()]
"""A function that draws in place of the default distribution: `(key, count, params) -> tree`."""

ALIASES = {
    "Decay": Decay,
    "Fraction": Fraction,
    "NonNegative": NonNegative,
    "Positive": Positive,
    "Number": Number,
    "Count": Count,
    "Period": Period,
    "Size": Size,
    "Axis": Axis,
    "Key": Key,
    "DType": DType,
    "Mask": Mask,
    "Sampler": Sampler,
}
"""The types by name, for documentation."""


def is_neutral(value: object, neutral: float = 0.0) -> bool:
    """Whether a hyper-parameter is the constant that leaves its part out: no momentum, no decay.

    Only Python numbers say so: an array, a signal or a schedule may change.

    Args:
      value: the hyper-parameter.
      neutral: the constant.
    """
    return isinstance(value, int | float) and value == neutral

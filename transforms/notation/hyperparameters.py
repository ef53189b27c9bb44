"""The types of hyper-parameters: what an argument may be, for people, type checkers and programs.

An alias says what a checker accepts and, in its metadata, what the value must fulfil. Factories
annotate with them, `transformation` reads them:

    @transformation()
    def scale_by_adam(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8) -> Flow: ...

Whoever needs another interval writes it down: `Annotated[Hyperparameter, Interval(1.0, 2.0)]`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import jax
import numpy as np
import optax
from jax.typing import DTypeLike

from .domains import Dimensions, DTypes, Functions, Interval, Keys, Masks, Neutral, Static, Trees
from .signal import Signal

Scalar: TypeAlias = float | jax.Array | Signal
"""A number of one step: a constant, an array that may be traced, or a scalar signal."""

Hyperparameter: TypeAlias = Scalar | optax.Schedule
"""A number that may change from step to step: a `Scalar`, or a schedule (step -> value)."""

Constant: TypeAlias = float | jax.Array
"""A number that is the same at every step: a constant, or an array that may be traced."""

Integer: TypeAlias = int | jax.Array | Signal

Decay = Annotated[Hyperparameter, Interval(0.0, 1.0, high_open=True)]
"""The decay of an average, in [0, 1)."""
Fraction = Annotated[Hyperparameter, Interval(0.0, 1.0)]
"""A share, in [0, 1]."""
NonNegative = Annotated[Hyperparameter, Interval(0.0, math.inf)]
"""A number that is not negative."""
Positive = Annotated[Hyperparameter, Interval(0.0, math.inf, low_open=True)]
"""A number greater than 0."""
AtLeastOne = Annotated[Hyperparameter, Interval(1.0, math.inf)]
"""A number from 1 on."""
Number = Annotated[Hyperparameter, Interval(-math.inf, math.inf)]
"""Any real number."""
NonNegativeConstant = Annotated[Constant, Interval(0.0, math.inf)]
"""A number that is not negative and the same at every step, such as what a state starts at."""
PositiveConstant = Annotated[Constant, Interval(0.0, math.inf, low_open=True)]
"""A number greater than 0 that is the same at every step."""
Count = Annotated[Integer, Interval(0, math.inf, integer=True)]
"""How many, from 0 on."""
Period = Annotated[Integer, Interval(1, math.inf, integer=True)]
"""Every how many steps, from 1 on."""
Step = Annotated[Integer, Interval(1, math.inf, integer=True)]
"""The number of a step; the first is 1."""
Size = Annotated[int, Static(), Interval(1, math.inf, integer=True)]
"""What sets shapes or the length of loops, from 1 on: a Python int, never an array."""
Length = Annotated[int, Static(), Interval(0, math.inf, integer=True)]
"""A `Size` that may be 0."""
Probability = Annotated[Hyperparameter, Interval(0.0, 1.0), Neutral(1.0)]
"""A probability, in [0, 1]; of 1 nothing is drawn."""
Share = Annotated[float, Static(), Interval(0.0, 1.0)]
"""A fraction that sets shapes: a Python number in [0, 1]."""
Portion = Annotated[float, Static(), Interval(0.0, 1.0, low_open=True)]
"""A share of which something is left: a Python number in (0, 1]."""
Ratio = Annotated[float, Static(), Interval(1.0, math.inf)]
"""The ratio of something larger to something smaller: a Python number from 1 on."""
Limit = Annotated[float, Static(), Interval(0.0, math.inf)]
"""A bound on sizes, from 0 on and maybe infinite: a Python number."""
Axis = Annotated[int, Static(), Interval(-math.inf, math.inf, integer=True)]
"""An axis, counted from either end: a Python int."""

ByDimension = Annotated[Mapping[Any, Any], Dimensions()]
"""Integers, or lists of them, by the number of dimensions of a leaf: an int, or its digits."""
Key = Annotated[int | jax.Array | np.integer[Any], Keys()]
"""A seed, or a key of the caller's."""
DType = Annotated[DTypeLike, DTypes()]
"""In which dtype something is stored."""
Mask = Annotated[Any, Masks()]
"""Which leaves: a tree of booleans (or a prefix of one), or a function from params to such."""
Tree = Annotated[Any, Trees()]
"""A tree of arrays, such as params of any container; an array is one."""
Sampler = Annotated[Callable[[jax.Array, Any, Any], Any], Functions()]
"""A function that draws in place of the default distribution: `(key, count, params) -> draws`.

The count is the number of updates made before.
"""

ALIASES = {
    "Decay": Decay,
    "Fraction": Fraction,
    "NonNegative": NonNegative,
    "Positive": Positive,
    "AtLeastOne": AtLeastOne,
    "Number": Number,
    "NonNegativeConstant": NonNegativeConstant,
    "PositiveConstant": PositiveConstant,
    "Count": Count,
    "Period": Period,
    "Step": Step,
    "Size": Size,
    "Length": Length,
    "Probability": Probability,
    "Share": Share,
    "Portion": Portion,
    "Ratio": Ratio,
    "Limit": Limit,
    "Axis": Axis,
    "ByDimension": ByDimension,
    "Key": Key,
    "DType": DType,
    "Mask": Mask,
    "Tree": Tree,
    "Sampler": Sampler,
}
"""The types by name, for documentation."""


def is_neutral(value: object, neutral: object = 0.0) -> bool:
    """Whether a hyper-parameter is the constant that leaves its part out: no momentum, no decay.

    A function of a hyper-parameter.

    Only Python numbers say so: an array, a signal or a schedule may change.

    Args:
      value: the hyper-parameter.
      neutral: the constant.
    """
    return isinstance(value, int | float) and value == neutral

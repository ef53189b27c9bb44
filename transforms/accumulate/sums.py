"""Sums over the steps."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import (
    global_squared_norm,
    lift_elementwise,
    sqrt,
    square,
    where,
)
from ..notation.hyperparameters import DType, NonNegativeConstant
from ..notation.roots import root, usable
from ..notation.signal import Signal
from ..notation.steps import Start, delay

SquaredNorm = Callable[[Signal], Signal]
"""The squared norm of a tree: of all of it, or leaf by leaf."""


@transformation()
def running_sum(*, start: Start | None = None, dtype: DType | None = None) -> Flow:
    """The sum of everything so far.

    A transformation to send signals through.

        s_t = s_{t-1} + x_t

    A sum that forgets, s_t = decay s_{t-1} + x_t, is `trace(decay)`.

    Args:
      start: what it starts at instead of zero; see `delay`.
      dtype: storage dtype; default that of the signal, at least float32.
    """

    def step(x: Signal) -> Signal:
        past = delay(x, start, dtype=dtype)
        return past << past + x

    return flow(step)


@checked()
def running_norm(
    x: Signal,
    squared_norm: SquaredNorm = global_squared_norm,
    *,
    start_square: NonNegativeConstant = 0.0,
    name: str,
) -> Signal:
    """The root of the sum of the squared norms of everything so far.

    A function of signals.

        s_t = sqrt(s_{t-1}^2 + |x_t|^2)

    It is the root that is kept, and squares are taken of x_t over a million times s_{t-1}: they are
    numbers of the format where those of x_t are none, and what vanishes counts for nothing.

    Args:
      x: a tree signal.
      squared_norm: `global_squared_norm`, one of `leaf_squared_norm` for a sum of each leaf, or a
        multiple of it.
      start_square: s_0^2.
      name: name of the state.

    Returns:
      A signal like the squared norm.
    """
    is_number = isinstance(start_square, int | float)
    start = math.sqrt(start_square) if is_number else root(jnp.asarray(start_square))
    past = delay(squared_norm(x), start, name=name)
    size = _well_above(past)
    total = square(past / size) + squared_norm(x / size)
    # of the size of the first nothing is known: it is read in large units, too
    first = LARGE * sqrt(squared_norm(x / LARGE))
    return past << where((past == 0) & (total > 1), first, size * sqrt(total))


LARGE = 2.0**60
"""Unit of a first vector, in which squares of 1 and of 1e18 are numbers."""


def _usable_above(x: jax.Array) -> jax.Array:
    return usable(2.0**20 * x)


_well_above = lift_elementwise(_usable_above, "well_above")

"""Vectors of unit length."""

from typing import Any

import jax.numpy as jnp

from ..notation.functions import divide_or_zero, lift, square
from ..notation.signal import Signal


def normalize(g: Signal, axis: int | None = None, min_norm: Any = 0.0) -> Signal:
    """Divides by the Euclidean norm; a zero vector stays zero.

    A function of signals.

    Args:
      g: a tree signal.
      axis: along which the vectors lie; default the whole leaf. A scalar is a vector of its own.
      min_norm: lower bound of the divisor.
    """
    total = lift(lambda x: jnp.sum(x, axis if x.ndim else None, keepdims=True), "sum")(square(g))
    return divide_or_zero(g, lift(_bounded_root, "norm")(total, min_norm))


def _bounded_root(total: Any, low: Any) -> Any:
    zero = total == 0
    return jnp.maximum(jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, total))), low)

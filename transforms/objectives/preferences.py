"""How much each objective counts, as the user says it."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..notation.checks import checked
from ..notation.errors import FlowError

Vector: TypeAlias = Sequence[float] | np.ndarray | jax.Array
"""Numbers, one for each objective."""


@checked()
def check_vector(label: str, name: str, value: Vector | None) -> None:
    """Raises FlowError unless an argument is None or a vector of numbers, one per objective.

    A check of an argument.
    """
    if value is None:
        return
    try:
        array: Any = np.asarray(value) if isinstance(value, list | tuple) else value
        is_vector = array.ndim == 1 and array.dtype.kind in "iuf" and array.size > 0
    except (AttributeError, TypeError, ValueError):
        is_vector = False
    if not is_vector:
        raise FlowError(f"{label}: {name}={value!r} must be a vector of numbers, or None")


@checked()
def vector_for(
    label: str, name: str, value: Vector | None, like: jax.Array, default: float
) -> jax.Array:
    """The argument as a vector with one number for each row of `like`.

    A function of arrays.

    Args:
      label: the method.
      name: the argument.
      value: what was given; None takes the default for all objectives.
      like: an array whose first axis is that of the objectives.
      default: see `value`.

    Raises:
      FlowError: where their numbers differ.
    """
    count, dtype = len(like), jnp.finfo(like.dtype).dtype
    if value is None:
        return jnp.full(count, default, dtype)
    if len(value) != count:
        raise FlowError(f"{label}: {name} has {len(value)} entries for {count} objectives")
    return jnp.asarray(value, dtype)

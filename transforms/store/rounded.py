"""State in fewer bits per number, rounded at random."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.hyperparameters import DType, Key
from ..notation.rounding import narrowed
from ..notation.signal import Signal
from ..notation.steps import stateful
from ..trees.random import random_key
from .encoded import Coding, Select, encoded_cell, selector


@checked()
def stochastically_rounded(x: jax.Array, dtype: DTypeLike, key: jax.Array) -> jax.Array:
    """The array in a narrower dtype: one of its two neighbours, x in the mean.

    A function of arrays.

    Rounding to nearest would leave an average with a decay of 0.999 where it is.

    Args:
      x: float32 or float64.
      dtype: bfloat16, float16, ...
      key: of the draws.
    """
    return narrowed(x, dtype, key)


@transformation()
def store_state(
    inner: optax.GradientTransformation,
    dtype: DType = jnp.bfloat16,
    select: Select | None = None,
    key: Key = 0,
) -> Flow:
    """Keeps the state of a transformation in a narrower dtype between the steps.

    A transformation to send signals through.

        update, state = inner(kept as float32, g),   kept = state, rounded at random to dtype

    The update is computed from the state before it is rounded; the rounding is right in the mean.

    Args:
      inner: any transformation, Optax's included.
      dtype: bfloat16, float16, ...
      select: `(path, leaf) -> bool`: which floating leaves; default those with the shape of a
        param.
      key: seed or key of the rounding.

    Returns:
      The wrapped transformation; its state has a counter and a key beside.

    Raises:
      ValueError: for a dtype that is not floating.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.transforms.store import store_state
      >>> state = store_state(optax.adam(1e-3)).init(jnp.zeros(8))
      >>> optax.tree_utils.tree_get(state, "mu").dtype.name
      'bfloat16'
    """

    def encode(path: tuple[Any, ...], leaf: jax.Array, own: Any) -> jax.Array:
        return leaf.astype(dtype) if own is None else stochastically_rounded(leaf, dtype, own)

    def decode(path: tuple[Any, ...], kept: Any, leaf: jax.Array) -> jax.Array:
        return kept.astype(leaf.dtype)

    def step(g: Signal) -> Signal:
        cell = encoded_cell(inner, selector(select, 1), Coding(encode, decode))
        return stateful(cell, g, random_key(key))

    return flow(step)

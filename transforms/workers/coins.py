"""Coins that all workers see alike."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..notation import draws
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Hyperparameter, Key
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..trees.random import random_key


@checked()
def coin(
    key: Key | Signal,
    probability: Hyperparameter,
    coin_fn: Callable[..., Any] | None = None,
    *,
    late: bool = False,
) -> Signal:
    """A boolean scalar signal, true with a probability, the same on all workers.

    A function of signals.

    Args:
      key: seed or key of the draws; a signal is the key of this step already.
      probability: that it is true; number or schedule.
      coin_fn: `(key, count) -> bool` in place of the draw; count is 0 at the first step.
      late: the coin of the step before, and true at the first.
    """
    t = step_count()

    def thrown(
        context: Context, key: jax.Array, count: jax.Array, p: float | jax.Array
    ) -> jax.Array:
        if coin_fn is None:
            shown = draws.uniform(key, (), context.scalar_dtype) < p
        else:
            shown = jnp.asarray(coin_fn(key, count - 1 - late)).astype(bool)
        return shown | (count == 1) if late else shown

    def out(*_: float | jax.ShapeDtypeStruct | Context) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((), jnp.bool_)

    return lift_tree(thrown, "coin", context=True, out=out)(random_key(key), t, probability)

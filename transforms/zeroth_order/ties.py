"""Dependencies that the compiler cannot see through: they decide when something is drawn."""

import jax
import jax.numpy as jnp

from ..notation.functions import lift
from ..notation.sharding import explicit_axes


def tied(key: jax.Array, value: jax.Array) -> jax.Array:
    """The key itself, but not before `value` is there.

    Draws from it can then neither be hoisted out of a loop nor be made ahead of the computation
    that they are needed in, where they would take up the memory of a copy of the params. (An
    optimization barrier does not last until the compiler orders the computation.)

    Args:
      key: a typed key.
      value: an array, any of whose entries decides.
    """
    if not value.size or explicit_axes(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        return key
    entry = jax.lax.stop_gradient(value)[(0,) * value.ndim]
    never = (entry != entry) & (entry > 0)
    data = jax.random.key_data(key)
    return jax.random.wrap_key_data(data ^ never.astype(data.dtype), impl=jax.random.key_impl(key))


def unfused(array: jax.Array) -> jax.Array:
    """The array behind a barrier: what follows is compiled alike, wherever it comes from."""
    return jax.lax.optimization_barrier(array)


settled = lift(unfused, "settled")
"""A tree that is computed once, not again within each of its uses and rounded differently."""

"""The order of entries as ranks: what selects the largest or smallest with static shapes."""

import jax
import jax.numpy as jnp


def ranks(x: jax.Array) -> jax.Array:
    """The place of every entry of a vector in ascending order; of equal ones the first is lower.

    A function of arrays.

    `ranks(x) < k` selects the k smallest entries, exactly k of them, where k may be traced.

    Args:
      x: a vector.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.trees import ranks
      >>> ranks(jnp.array([3.0, 1.0, 2.0, 1.0])).tolist()
      [3, 0, 2, 1]
    """
    places = jnp.arange(x.size)
    return jnp.zeros_like(places).at[jnp.argsort(x, stable=True)].set(places)

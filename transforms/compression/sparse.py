"""The entries of largest magnitude, or some at random."""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation import draws
from ..notation.checks import checked
from ..notation.hyperparameters import Key, Portion, Size
from ..notation.ordering import places_of_largest
from .compressor import Coded, Message, on_vectors


@checked()
def top_k(k: Size = 1, per_leaf: bool = False) -> Coded:
    """Sends the k entries of largest magnitude, and their places.

    A compressor, for `compress` and `compress_with_error_feedback`.

    Args:
      k: how many; all of them where there are fewer.
      per_leaf: k of every leaf; else k of the whole tree. On a mesh that is no gathering of leaves
        that are spread over devices.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.compression import compress, top_k
      >>> opt = compress(top_k(2))
      >>> g = jnp.array([1.0, -3.0, 2.0])
      >>> opt.update(g, opt.init(g))[0].tolist()
      [0.0, -3.0, 2.0]
    """

    def encode(vector: jax.Array, _: jax.Array | None) -> Message:
        places = places_of_largest(jnp.abs(vector), min(k, vector.size))
        return {"places": places, "values": vector[places]}

    return on_vectors("top_k", encode, scattered, per_leaf, k=k)


@checked()
def top_fraction(fraction: Portion = 0.01, per_leaf: bool = True) -> Coded:
    """`top_k` with k = max(1, floor(fraction * length)).

    A compressor, for `compress` and `compress_with_error_feedback`.

    Args:
      fraction: of the entries that are sent.
      per_leaf: of every leaf; else of the whole tree.
    """

    def encode(vector: jax.Array, _: jax.Array | None) -> Message:
        k = max(1, math.floor(fraction * vector.size))
        places = places_of_largest(jnp.abs(vector), k)
        return {"places": places, "values": vector[places]}

    return on_vectors("top_fraction", encode, scattered, per_leaf, fraction=fraction)


@checked()
def rand_k(k: Size = 1, per_leaf: bool = False, key: Key = 0) -> Coded:
    """Sends k entries drawn without replacement, times length / k: unbiased.

    A compressor, for `compress` and `compress_with_error_feedback`.

    Args:
      k: how many; all of them where there are fewer.
      per_leaf: k of every leaf; else k of the whole tree.
      key: seed or key of the draws, of which each worker makes its own.
    """

    def encode(vector: jax.Array, key: jax.Array) -> Message:
        count = min(k, vector.size)
        places = draws.permutation(key, vector.size)[:count].astype(jnp.int32)
        return {"places": places, "values": vector[places] * (vector.size / count)}

    return on_vectors("rand_k", encode, scattered, per_leaf, key, k=k)


def scattered(messages: Message, length: int, dtype: DTypeLike, weights: jax.Array) -> jax.Array:
    """The vector whose entries stand in messages with their places."""
    values = messages["values"] * weights.astype(dtype)[:, None]
    return jnp.zeros(length, dtype).at[messages["places"].ravel()].add(values.ravel())

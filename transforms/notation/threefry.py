"""JAX's default generator, whose bits a CPU computes in one kernel.

On a CPU JAX runs the twenty rounds of Threefry in a loop, some twenty kernels that each go over
memory. Written out they are one kernel, with what is made of the bits: of 4M normal numbers 57 ms
to compile and 21 ms to run in place of 199 and 56. The bits are the same.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_prng_impl

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

_PARITY = np.uint32(0x1BD11BDA)

_WORDS = 2**32
"""Counts that one word tells apart."""

_UNSIGNED = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}


def written_out(key: jax.Array) -> jax.Array:
    """A key that draws the same numbers without loops; one of another generator as it is.

    Args:
      key: a typed key, or an array of them.
    """
    if not (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and _is_counted_by_entry()):
        return key
    if jax.random.key_impl(key) != "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_WRITTEN_OUT)


def _is_counted_by_entry() -> bool:
    config: object = jax.config
    return bool(getattr(config, "jax_threefry_partitionable", False))


@jax.jit
def _hash(first: jax.Array, second: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two words of each count, whose higher word is 0, under a key of two words.

    What is not of one entry is spread over all of them once: a compiler has as much to look at
    for each leaf.
    """

    def spread(word: jax.Array | np.uint32) -> jax.Array:
        return jax.lax.full_like(count, word)

    words = (first, second, first ^ second ^ _PARITY)
    wide = [*map(spread, words)]
    amounts = sorted({x for r in itertools.chain(*_ROTATIONS) for x in (r, 32 - r)})
    by = {amount: spread(np.uint32(amount)) for amount in amounts}
    a, b = wide[0], count + wide[1]
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            a = a + b
            b = a ^ (b << by[rotation] | b >> by[32 - rotation])
        a = a + wide[(i + 1) % 3]
        b = b + spread(words[(i + 2) % 3] + np.uint32(i + 1))
    return a, b


def _counts(shape: tuple[int, ...]) -> jax.Array:
    """The number of every entry, of which each device makes those of its own entries."""
    found = jnp.zeros((), jnp.uint32)
    for axis in range(len(shape)):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        found = found + np.uint32(math.prod(shape[axis + 1 :])) * along
    return found


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    if math.prod(shape) >= _WORDS:
        return threefry_prng_impl.random_bits(key, bit_width, shape)
    high, low = _hash(key[0], key[1], _counts(shape))
    dtype = _UNSIGNED[bit_width]
    if bit_width == 64:
        return high.astype(dtype) << np.uint64(32) | low.astype(dtype)
    return (high ^ low).astype(dtype)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_hash(key[0], key[1], _counts(shape)), axis=-1)


def _fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
    return jnp.stack(_hash(key[0], key[1], jnp.asarray(data, jnp.uint32)))


_WRITTEN_OUT = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32 written out",
    tag="frw",
)

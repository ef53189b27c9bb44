"""Storage below float32: rounded up or down at random, so that the mean is what was written.

A second moment in bfloat16 with a decay of 0.999 that is rounded to nearest never moves: every
change is less than half of the last bit.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from . import draws


def is_narrow(dtype: DTypeLike | None) -> bool:
    """Whether it is a floating-point dtype below float32."""
    if dtype is None or not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        return False
    return bool(jnp.finfo(dtype).bits < 32)


def rounding_key(step: jax.Array, number: int) -> jax.Array:
    """The key of one delay at one step: the same in every run.

    Args:
      step: the number of the step.
      number: of the delay, among those of its flow.
    """
    return draws.fold_in(draws.fold_in(jax.random.key(0), number), step)


def narrowed(x: jax.Array, dtype: DTypeLike, key: jax.Array) -> jax.Array:
    """x in a narrower dtype, rounded at random to one of its two neighbours there.

    The nearer one is the likelier one, by the distances, so that the mean of many roundings is x;
    what `dtype` holds exactly stays as it is. The derivative is that of the identity.

    Args:
      x: array of floats, at least float32, and wider than `dtype`.
      dtype: the storage dtype.
      key: of the draw.
    """
    # The barrier: a compiler that leaves out the rounding to and fro would see no difference.
    value = jax.lax.stop_gradient(x)
    nearest = jax.lax.optimization_barrier(value.astype(dtype))
    word = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[jnp.finfo(dtype).bits]
    bits = jax.lax.bitcast_convert_type(nearest, word)
    wide = nearest.astype(x.dtype)
    # As integers, the magnitudes are in order: one more is the next one away from zero.
    inner = jnp.where(jnp.abs(wide) > jnp.abs(value), bits - jnp.ones_like(bits), bits)
    low, high = (
        jax.lax.bitcast_convert_type(side, dtype).astype(x.dtype)
        for side in (inner, inner + jnp.ones_like(inner))
    )
    share = (value - low) / jnp.where(high == low, 1, high - low)
    up = draws.uniform(key, x.shape, jnp.float32) < share
    is_finite = jnp.isfinite(wide) & jnp.isfinite(high)
    chosen = jnp.where(is_finite, jnp.where(up, high, low), wide)
    moved = jnp.where(is_finite, chosen - wide, 0)
    return (x.astype(dtype).astype(x.dtype) + moved).astype(dtype)

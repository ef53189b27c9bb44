"""Counting: how far a count has come, without losing a step.

A count is subtracted from the start of its segment while both are still integers: in float32,
step 2^24 + 1 and step 2^24 are the same number. Bounds beyond the count's integer type (3e9 steps
and an int32 count) are cut to it first, so that nothing overflows. Counts may be Python numbers,
NumPy or JAX arrays, integer or floating.
"""

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Count: TypeAlias = np.ndarray[Any, Any] | jax.Array
Numeric: TypeAlias = jax.typing.ArrayLike


def as_count(count: Numeric | Count) -> Count:
    """The count as an array; what is not JAX's stays with NumPy, whose integers have 64 bits."""
    return count if isinstance(count, jax.Array) else np.asarray(count)


def as_float(number: Numeric | Count) -> jax.Array:
    """The number in the default float precision: float64 where x64 is enabled, else float32."""
    return jnp.asarray(number, dtype=jnp.result_type(float))


def largest(count: Count) -> float:
    """The largest value that the count's type can hold, infinity for floating counts."""
    return int(np.iinfo(count.dtype).max) if np.issubdtype(count.dtype, np.integer) else math.inf


def within(count: Count, bound: float) -> float:
    """A bound on the count, cut to what its type can hold and rounded to its kind."""
    return bound if largest(count) == math.inf else int(min(bound, largest(count)))


def reached(count: Numeric | Count, boundary: int) -> Count:
    """Whether `count >= boundary`."""
    steps = as_count(count)
    if boundary > largest(steps):
        return jnp.zeros(steps.shape, bool)
    return steps >= boundary


def after(count: Numeric | Count, end: float) -> Count:
    """Whether `count > end`, for an end that may lie between two steps."""
    steps = as_count(count)
    return steps > end if largest(steps) == math.inf else reached(steps, math.floor(end) + 1)


def since(count: Numeric | Count, start: int) -> Count:
    """`max(count - start, 0)` in the count's own type."""
    steps = as_count(count)
    first = within(steps, start)
    past: Count = steps.clip(first, None) - first
    return past


def modulo(count: Numeric | Count, period: int) -> Count:
    """`count mod period` in the count's own type."""
    steps = as_count(count)
    return steps if period > largest(steps) else steps % period


def times(count: Numeric | Count, period: int) -> Count:
    """How often `period` is contained in the count."""
    steps = as_count(count)
    return steps * 0 if period > largest(steps) else steps // period


def elapsed(count: Numeric | Count, start: float = 0, length: float = math.inf) -> jax.Array:
    """Steps from `start` to `count`, held to [0, length], as a float."""
    steps = as_count(count)
    first = within(steps, max(math.floor(start), 0))
    last = None if math.isinf(length) else within(steps, max(math.ceil(start + length), 0))
    whole = as_float(steps.clip(first, last) - first)
    return jnp.clip(whole + float(first - start), 0, float(length))


def remaining(count: Numeric | Count, start: float, length: float) -> jax.Array:
    """Steps from `count` to the end at `start + length`, held to [0, length], as a float."""
    steps = as_count(count)
    first = within(steps, max(math.floor(start), 0))
    last = within(steps, max(math.ceil(start + length), 0))
    whole = as_float(last - steps.clip(first, last))
    return jnp.clip(whole + float(start + length - last), 0, float(length))


def fractions(count: Numeric | Count, start: float, length: float) -> tuple[jax.Array, jax.Array]:
    """The fractions of a segment that are done and left: (0, 1) at its start, (1, 0) at its end.

    Each is counted from its own end, since `1 - done` would have lost the last steps of a long
    segment. A segment without length is done as soon as it starts.
    """
    if length <= 0:
        done = as_float(reached(count, max(math.ceil(start), 0)))
        return done, 1 - done
    return _share(elapsed(count, start, length), length), _share(
        remaining(count, start, length), length
    )


def _share(steps: jax.Array, length: float) -> jax.Array:
    # a compiler may multiply by the inverse, and length * (1 / length) is not always 1
    return jnp.where(steps >= float(length), 1, steps / float(length))


def between(start: Numeric, end: Numeric, left: jax.Array) -> jax.Array:
    """The value between `start` (left = 1) and `end` (left = 0), exact at both."""
    return jnp.asarray(start * left + end * (1 - left))

"""What is done across the rows of a stack, entry by entry."""

import functools
import math
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from .sharding import explicit_axes
from .values import at_least_float32

FEW = 8
"""So many rows are added one by one, in the kernel of what reads the sum."""

SHORT = 2**12
"""So many entries of a row are summed, or sorted, in no time whichever way."""

NETWORK = 16
"""So many rows are sorted by comparisons that are known beforehand, 63 of them for 16."""


def sum_of_rows(stack: jax.Array) -> jax.Array:
    """The sum along the leading axis.

    A function of arrays.

    Long rows are added one by one, or multiplied by ones: XLA's reduction to many entries takes
    forty times as long on a CPU, 24 ms for five rows of a million.

    Args:
      stack: an array of at least one dimension.
    """
    numbers = jnp.issubdtype(stack.dtype, jnp.inexact)
    if not numbers or stack.ndim < 2 or explicit_axes(stack) or math.prod(stack.shape[1:]) <= SHORT:
        return jnp.sum(stack, axis=0)
    wide = at_least_float32(stack.dtype)
    if 0 < len(stack) <= FEW:
        total = functools.reduce(operator.add, stack.astype(wide))
    else:
        ones = jnp.ones(len(stack), stack.dtype)
        total = jnp.tensordot(ones, stack, axes=1, precision="highest", preferred_element_type=wide)
    return total.astype(stack.dtype)


def mean_of_rows(stack: jax.Array) -> jax.Array:
    """The mean along the leading axis, of which no sum overflows.

    A function of arrays.

    Args:
      stack: an array of at least one row.
    """
    return sum_of_rows(stack / len(stack))


def sorted_rows(stack: jax.Array) -> jax.Array:
    """Every column in ascending order along the leading axis.

    A function of arrays.

    Few long rows go through Batcher's odd-even mergesort, whole rows at a time: XLA sorts column by
    column, which takes twenty times as long on a CPU, 120 ms for ten rows of 300,000.

    Args:
      stack: an array of at least one dimension, without NaN.
    """
    if len(stack) > NETWORK or math.prod(stack.shape[1:]) <= SHORT:
        return jnp.sort(stack, axis=0)
    rows = list(stack)
    for low, high in comparisons(len(rows)):
        pair = rows[low], rows[high]
        rows[low], rows[high] = jnp.minimum(*pair), jnp.maximum(*pair)
    return jnp.stack(rows)


def comparisons(count: int) -> Iterator[tuple[int, int]]:
    """The places to put in order, one pair after the other, which sorts any `count` values.

    References:
      Batcher 1968, Sorting Networks and Their Applications.
    """
    sizes = [2**i for i in range(max(count - 1, 0).bit_length())]
    for size in sizes:
        for apart in reversed(sizes[: sizes.index(size) + 1]):
            for first in range(apart % size, count - apart, 2 * apart):
                for low in range(first, min(first + apart, count - apart)):
                    if low // (2 * size) == (low + apart) // (2 * size):
                        yield low, low + apart

"""Entries by their rank: the k-th largest, and the k largest or smallest.

XLA sorts a leaf of a million entries in a quarter of a second on a CPU, a hundred times as long as
a step of Adam takes. What is asked for is one rank, not the order: the number with k larger ones is
found digit by digit, from the highest of its bits, and every digit only counts entries.

XLA's compiler for the CPU cuts a sum into trees, and writes an array of what is to be summed;
several sums at a time it leaves whole. So three counts are one pass, which finds two bits.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .known import choose, repeat
from .values import at_least_float32

DIGIT = 2
"""Bits that are found at a time, by three counts, which take little longer than one."""

SORTED = 2**6
"""So many entries are sorted at once, in less time than counting them for every digit takes."""

PICKED = 2**12
"""So many places of the largest XLA finds in less time than it takes to count the entries."""


def kth_largest(x: jax.Array, k: int | jax.Array) -> jax.Array:
    """The entry at place k in descending order; its derivative goes to the entries that equal it.

    A function of arrays.

    Args:
      x: real numbers, of any shape.
      k: the place, from 0 for the largest to `x.size - 1`.
    """
    if x.size <= SORTED:
        return jnp.sort(x, axis=None, descending=True)[k]
    return _of_rank(x, k)


@jax.custom_jvp
def _of_rank(x: jax.Array, k: int | jax.Array) -> jax.Array:
    wide = x.astype(at_least_float32(x.dtype))
    ordered = _ordered(wide)
    whole = jnp.iinfo(ordered.dtype)
    found = _whole_of_rank(ordered, k, jnp.full((), whole.min, ordered.dtype), whole.bits)
    return lax.bitcast_convert_type(_turned(found), wide.dtype).astype(x.dtype)


@_of_rank.defjvp
def _of_rank_jvp(
    primals: tuple[jax.Array, int | jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    (x, k), dx = primals, tangents[0]
    found = _of_rank(x, k)
    equal = (x == found) & jnp.isfinite(found)
    count = jnp.maximum(jnp.sum(equal, dtype=x.dtype), 1)
    return found, jnp.sum(jnp.where(equal, dx, jnp.zeros_like(dx))) / count


def _whole_of_rank(x: jax.Array, k: int | jax.Array, lowest: jax.Array, bits: int) -> jax.Array:
    """The whole number at place k, of so many bits above the lowest, which it is of fewer."""
    places = -(-bits // DIGIT)

    def narrowed(place: int | jax.Array, least: jax.Array) -> jax.Array:
        return _narrowed(x, k, least, DIGIT * (places - 1 - place))

    found: jax.Array = repeat(places, narrowed, lowest)
    return found


def _narrowed(
    ordered: jax.Array, k: int | jax.Array, least: jax.Array, shift: int | jax.Array
) -> jax.Array:
    """The least number at place k of which one more digit is known, at this place of its bits."""
    unit = jnp.ones_like(least) << shift
    counts = _reaching(ordered, [least + unit * digit for digit in range(1, 2**DIGIT)])
    return least + unit * sum((count > k).astype(least.dtype) for count in counts)


def _reaching(x: jax.Array, least: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """How many entries are not below each of these numbers."""
    return _counts(*(x >= number for number in least))


def _counts(*flags: jax.Array, axes: Sequence[int] | None = None) -> Sequence[jax.Array]:
    """How many of each of several arrays of one shape are true, along axes or all, in one pass."""
    counted = tuple(flag.astype(jnp.int32) for flag in flags)
    zeros = (jnp.zeros((), jnp.int32),) * len(counted)
    along = range(flags[0].ndim) if axes is None else axes
    found: Sequence[jax.Array] = lax.reduce(counted, zeros, _added, along)
    return found


def _added(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> Sequence[jax.Array]:
    return tuple(map(lax.add, a, b))


def _ordered(x: jax.Array) -> jax.Array:
    """Integers in the order of the numbers."""
    whole = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    return _turned(lax.bitcast_convert_type(x, whole))


def _turned(bits: jax.Array) -> jax.Array:
    """Of negative numbers the larger ones have the smaller bits; it undoes itself."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def are_largest(x: jax.Array, k: int | jax.Array) -> jax.Array:
    """Whether an entry is one of the k largest, of equal ones the first: true for exactly k.

    A function of arrays.

    Args:
      x: a vector of real numbers.
      k: how many, a whole number; of less than 0 none, of more than there are all.
    """
    k = jnp.clip(jnp.asarray(k).astype(jnp.int32), 0, x.size)
    if x.size <= SORTED:
        return _how_many_before(x) < k
    least = _of_rank(lax.stop_gradient(x), jnp.maximum(k, 1) - 1)
    larger, equal = x > least, x == least
    above, level = _counts(larger, equal)
    room = k - above
    first = choose(room < level, lambda: are_first(equal, room), lambda: equal)
    return larger | first


def _how_many_before(x: jax.Array) -> jax.Array:
    """How many entries are larger than each, or as large and earlier; no numbers come last."""
    one, other = x[:, None], x[None]
    missing, given = jnp.isnan(one), ~jnp.isnan(other)
    earlier = jnp.arange(x.size)[None] < jnp.arange(x.size)[:, None]
    larger = (other > one) | (missing & given)
    alike = (other == one) | (missing & ~given)
    above, level = _counts(larger, alike & earlier, axes=(1,))
    return above + level


def are_first(flags: jax.Array, count: int | jax.Array) -> jax.Array:
    """Whether an entry is one of the first so many that are true; none for a count of 0 or less.

    A function of arrays.

    Of a longer cumulative sum XLA's compiler for the CPU makes a dozen of kernels.

    Args:
      flags: a vector of booleans.
      count: how many.
    """
    if flags.size <= SORTED:
        return flags & (jnp.cumsum(flags, dtype=jnp.int32) <= count)
    left = jnp.where(flags, jnp.arange(flags.size, 0, -1, dtype=jnp.int32), 0)
    least = _whole_of_rank(left, count - 1, jnp.zeros((), jnp.int32), flags.size.bit_length())
    return flags & (left >= least) & (count > 0)


def places_of_largest(x: jax.Array, k: int) -> jax.Array:
    """The places of the k largest entries, of equal ones the first; in no particular order.

    A function of arrays.

    Args:
      x: a vector of real numbers.
      k: how many, from 1 to all.
    """
    if k <= PICKED:
        return lax.top_k(x, k)[1]
    # `jnp.nonzero` of k true ones, which it need not count: that at j comes after all entries up to
    # which there are j or fewer.
    so_far = jnp.cumsum(are_largest(x, k), dtype=jnp.int32)
    places = jnp.cumsum(jnp.zeros(k, jnp.int32).at[so_far].add(1, mode="drop"), dtype=jnp.int32)
    return jnp.minimum(places, x.size - 1)  # among entries that are not numbers fewer are true

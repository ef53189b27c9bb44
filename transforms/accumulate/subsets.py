"""Second moments that the entries of a subset share."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.compose import named
from ..notation.errors import FlowError
from ..notation.functions import lift, square
from ..notation.hyperparameters import Fraction, Mask, is_neutral
from ..notation.parts import merge, split
from ..notation.sharding import replicated
from ..notation.signal import Signal
from .ema import ema
from .sums import running_sum

SubsetSize = int | Literal["heuristics"]


@checked()
def subset_moment(g: Signal, b2: Fraction, subset_size: SubsetSize, select: Mask) -> Signal:
    """A second moment of which each subset of a leaf has one, spread over its entries.

    A function of signals.

        s_t = sum of g_t^2 over each subset
        v_t = b2 v_{t-1} + (1 - b2) s_t,    v_t = v_{t-1} + s_t  if b2 = 1

    Args:
      g: a tree signal.
      b2: decay, in [0, 1].
      subset_size: "heuristics": a sum for each row of a matrix, or for each column if these are
        more; k > 0: chunks of the row-major leaf, of the largest divisor of its size up to k;
        k < 0: the same with floor(sqrt(size) / |k|), at least 1, for k.
      select: the leaves whose entries share; the others have one moment per entry.

    Raises:
      FlowError: for a size of 0.

    References:
      Nguyen & Nguyen 2024 (arXiv 2411.07120).
    """
    if subset_size != "heuristics" and (not isinstance(subset_size, int) or subset_size == 0):
        raise FlowError(f"subset_norm: subset_size={subset_size!r} must be an integer, not 0")
    sums = is_neutral(b2, 1.0)

    def shared(part: Signal, size: SubsetSize, name: str) -> Signal:
        s = _sums(square(part), size=size)
        v = s >> named(name, running_sum() if sums else ema(b2))
        return _spread(v, part, size=size)

    part, others = split(g, select)
    return merge(shared(part, subset_size, "nu_subsets"), shared(others, 1, "nu"))


def _chunk(size: int, entries: int) -> int:
    """The length of the chunks of a leaf."""
    wanted = size if size > 0 else max(1, math.floor(math.sqrt(entries) / -size))
    return max(k for k in range(1, min(wanted, entries) + 1) if entries % k == 0)


def _axis(shape: tuple[int, ...]) -> int:
    """The axis that is summed: rows are kept if there are as many or more of them."""
    return 1 if shape[0] >= shape[1] else 0


def _sum(x: jax.Array, size: SubsetSize) -> jax.Array:
    if size == 1 or x.size == 0:
        return x
    if size == "heuristics":
        return jnp.sum(x, axis=_axis(x.shape), keepdims=True)
    return jnp.sum(replicated(x).reshape(-1, _chunk(size, x.size)), axis=1)


def _spread_of(v: jax.Array, x: jax.Array, size: SubsetSize) -> jax.Array:
    if size == 1 or x.size == 0:
        return v
    if size == "heuristics":
        return jnp.broadcast_to(v, x.shape)
    return jnp.repeat(v, _chunk(size, x.size), total_repeat_length=x.size).reshape(x.shape)


_sums = lift(_sum, "subset_sums")
_spread = lift(_spread_of, "spread")

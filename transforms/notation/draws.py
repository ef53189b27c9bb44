"""Random draws of small leaves, cheap to compile: the numbers of `jax.random`, in one row."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from .stacks import SMALL

WIDE = 64
"""Entries of a last axis that XLA does not unroll."""

MANY = 4
"""So many leaves that are alike are drawn as a stack: a draw is a loop and a hundred operations."""


def folded(key: jax.Array, numbers: Any) -> jax.Array:
    """A key for each of several numbers, in one loop: `jax.random.fold_in` of each is a loop."""
    keys: jax.Array = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return keys


def in_a_row(draw: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of `jax.random`, `(key, shape, ...) -> array`, that draws the same entries.

    XLA for the CPU unrolls a short last axis, and a generator has some hundred operations for each
    entry: 720 ms for 180 of 8x8 normal numbers, and 210 ms for as many along one axis. Large leaves
    with long axes are left as they are: spread over devices, each draws its own part of them.
    """

    @functools.wraps(draw)
    def drawn(key: jax.Array, shape: tuple[int, ...] = (), *args: Any, **kwargs: Any) -> jax.Array:
        size = math.prod(shape)
        if len(shape) < 2 or (size > SMALL and shape[-1] >= WIDE):
            return draw(key, shape, *args, **kwargs)
        return draw(key, (size,), *args, **kwargs).reshape(shape)

    return drawn


normal = in_a_row(jax.random.normal)
uniform = in_a_row(jax.random.uniform)
rademacher = in_a_row(jax.random.rademacher)
exponential = in_a_row(jax.random.exponential)

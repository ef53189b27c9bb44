"""Random draws that are cheap to compile: the numbers of `jax.random`, without loops."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .known import made_once
from .stacks import SMALL
from .threefry import written_out

WIDE = 64
"""Entries of a last axis that XLA does not unroll."""

MANY = 4
"""So many leaves that are alike are drawn as a stack: a draw is a loop and a hundred operations."""


def without_loops(draw: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of `jax.random`, `(key, ...) -> array`, that draws the same; see `threefry`.

    A single number is drawn in one place, lest every kernel that reads it draws it anew.
    """

    @functools.wraps(draw)
    def drawn(key: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        found = draw(written_out(key), *args, **kwargs)
        return found if found.ndim else made_once(found)[0]

    return drawn


def fold_in(key: jax.Array, number: Any) -> jax.Array:
    """`jax.random.fold_in`."""
    return _kept(jax.random.fold_in(written_out(key), number), key)


def folded(key: jax.Array, numbers: Any) -> jax.Array:
    """A key for each of several numbers."""
    return _kept(jax.vmap(jax.random.fold_in, (None, 0))(written_out(key), numbers), key)


def split(key: jax.Array, count: int = 2) -> jax.Array:
    """`jax.random.split`."""
    return _kept(jax.random.split(written_out(key), count), key)


def _kept(made: jax.Array, key: jax.Array) -> jax.Array:
    """Keys made of one, of its generator and in one place: not anew in whatever draws from them."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return made
    (data,) = made_once(jax.random.key_data(made))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def in_a_row(draw: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of `jax.random`, `(key, shape, ...) -> array`, that draws the same entries.

    XLA for the CPU unrolls a short last axis, and a generator has some hundred operations for each
    entry: 720 ms for 180 of 8x8 normal numbers, and 210 ms for as many along one axis. Large leaves
    with long axes are left as they are: spread over devices, each draws its own part of them.
    """
    plain = without_loops(draw)

    @functools.wraps(draw)
    def drawn(key: jax.Array, shape: tuple[int, ...] = (), *args: Any, **kwargs: Any) -> jax.Array:
        size = math.prod(shape)
        if len(shape) < 2 or (size > SMALL and shape[-1] >= WIDE):
            return plain(key, shape, *args, **kwargs)
        return plain(key, (size,), *args, **kwargs).reshape(shape)

    return drawn


normal = in_a_row(jax.random.normal)
uniform = in_a_row(jax.random.uniform)
rademacher = in_a_row(jax.random.rademacher)
exponential = in_a_row(jax.random.exponential)
normal_in_place = without_loops(jax.random.normal)
"""Not in a row: spread over devices, each draws its own part."""
uniform_in_place = without_loops(jax.random.uniform)
rademacher_in_place = without_loops(jax.random.rademacher)
bernoulli = without_loops(jax.random.bernoulli)
categorical = without_loops(jax.random.categorical)
gumbel = without_loops(jax.random.gumbel)
permutation = without_loops(jax.random.permutation)

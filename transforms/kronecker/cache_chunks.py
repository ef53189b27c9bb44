"""Iterations on many matrices, so few at a time that they stay in a processor's cache."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.known import is_known, repeat
from ..notation.sharding import explicit_axes

CHUNK_BYTES = 2**18
"""Of one operand: an iteration has half a dozen arrays of that size at work."""


def by_cache_chunks(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of batches take them chunk by chunk on the CPU.

    There, a pass over a batch that is larger than the cache waits for the memory most of the time.
    Each chunk also stops iterating when its own elements have converged. Chunks lie where they are
    in the batch, of which there is no copy; where their length is no divisor, the last one begins
    so early that it ends with the batch, and of what is done twice the first result stays. What
    comes out in the form of the batch is written in its place.

    A single matrix, stacks with more axes and batches of an explicit mesh, whose devices have their
    shares already, are taken as they are; so they are without jit, where a loop were compiled anew
    at every call.

    Args:
      fn: `(batch, ...) -> tree of arrays (b, ...)`, which treats every element on its own, the same
        at every place; a batch is an array (b, m, n) or a tree of arrays (b, ...). Further
        arguments are the same for all.
    """

    @functools.wraps(fn)
    def chunked(batch: Any, *args: Any, **kwargs: Any) -> Any:
        def whole(batch: Any) -> Any:
            return fn(batch, *args, **kwargs)

        arrays = jax.tree.leaves(batch)
        is_no_batch = isinstance(batch, jax.Array) and batch.ndim != 3
        if is_no_batch or any(map(explicit_axes, arrays)) or is_known(batch):
            return whole(batch)
        count, size = len(arrays[0]), _length(arrays)
        if count <= size:
            return whole(batch)
        return jax.lax.platform_dependent(
            batch, cpu=functools.partial(_in_turn, whole, size), default=whole
        )

    return chunked


def _length(arrays: list[jax.Array]) -> int:
    """Of a chunk: what the cache holds, a divisor of the number of elements if one comes near."""
    count = len(arrays[0])
    largest = max(x.size * x.dtype.itemsize for x in arrays) // max(count, 1)
    most = max(1, CHUNK_BYTES // max(largest, 1))
    if count <= most:
        return most
    divisor = max(n for n in range(1, most + 1) if count % n == 0)
    even = -(-count // -(-count // most))
    return divisor if 2 * divisor > most else even


def _in_turn(fn: Callable[[Any], Any], size: int, batch: Any) -> Any:
    count = len(jax.tree.leaves(batch)[0])

    def chunk_of(whole: Any, at: Any) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, size), whole)

    shapes = jax.eval_shape(lambda batch: fn(chunk_of(batch, 0)), batch)
    out = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), shapes)
    in_place = _form(out) == _form(batch)

    def one(number: Any, done: Any) -> Any:
        at = jnp.minimum(number * size, count - size)
        new = fn(chunk_of(done if in_place else batch, at))
        if count % size:
            is_new = jnp.arange(size) >= number * size - at
            new = jax.tree.map(functools.partial(_where, is_new), new, chunk_of(done, at))
        return jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0), done, new
        )

    start = batch if in_place else jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), out)
    return repeat(-(-count // size), one, start)


def _where(flags: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(flags.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _form(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(x.shape, x.dtype) for x in leaves]

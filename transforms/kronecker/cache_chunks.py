"""Iterations on many matrices, so few at a time that they stay in a processor's cache."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.known import is_known
from ..notation.sharding import explicit_axes
from .spreading import padded

CHUNK_BYTES = 2**18
"""Of one operand: an iteration has half a dozen arrays of that size at work."""


def by_cache_chunks(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of a batch of square matrices take them chunk by chunk on the CPU.

    There, a pass over a batch that is larger than the cache waits for the memory most of the time.
    Each chunk also stops iterating when its own matrices have converged. A single matrix, stacks
    with more axes and those of an explicit mesh, whose devices have their shares already, are
    taken as they are; so they are without jit, where a loop were compiled anew at every call.

    Args:
      fn: `(batch (b, m, n), ...) -> tree of arrays (b, ...)`, which treats every matrix on its
        own; further arguments are the same for all.
    """

    @functools.wraps(fn)
    def chunked(batch: Any, *args: Any, **kwargs: Any) -> Any:
        matrix = batch.shape[-2] * batch.shape[-1] * batch.dtype.itemsize
        size = max(1, CHUNK_BYTES // max(matrix, 1))
        count = batch.shape[0]
        as_it_is = batch.ndim != 3 or count <= size or explicit_axes(batch) or is_known(batch)
        if as_it_is:
            return fn(batch, *args, **kwargs)

        def alone(matrix: Any) -> Any:
            done = fn(matrix[None], *args, **kwargs)
            return jax.tree.map(lambda x: x[0], done)

        def in_turn(batch: Any) -> Any:
            if size == 1:  # without an axis of length one, for which XLA would copy the batch
                return jax.lax.map(alone, batch)
            chunks = padded(batch, size).reshape(-1, size, *batch.shape[1:])
            done = jax.lax.map(lambda chunk: fn(chunk, *args, **kwargs), chunks)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], done)

        return jax.lax.platform_dependent(
            batch, cpu=in_turn, default=lambda batch: fn(batch, *args, **kwargs)
        )

    return chunked


def of_cached_parts(fn: Callable[..., Any], batches: Any, *args: Any) -> Any:
    """`fn` of a tree of batches of tensors, on a CPU as many elements at a time as the cache holds.

    A function of arrays.

    The same holds as of `by_cache_chunks`, but nothing is filled up: a part is a divisor of the
    number of elements.

    Args:
      fn: `(batches, *args) -> tree of arrays (b, ...)`, which treats every element on its own.
      batches: a tree of arrays (b, ...).
      *args: the same for all.
    """
    arrays = jax.tree.leaves(batches)
    count = arrays[0].shape[0]
    largest = max(x.size * x.dtype.itemsize for x in arrays) // max(count, 1)
    most = max(1, CHUNK_BYTES // max(largest, 1))
    if count <= most or any(map(explicit_axes, arrays)) or is_known(batches):
        return fn(batches, *args)
    size = max(n for n in range(1, most + 1) if count % n == 0)

    def in_turn(batches: Any) -> Any:
        def part_of(x: Any, at: Any) -> Any:
            return jax.lax.dynamic_slice_in_dim(x, at * size, size)

        def one(at: Any) -> Any:
            return fn(jax.tree.map(lambda x: part_of(x, at), batches), *args)

        done = jax.lax.map(one, jnp.arange(count // size))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), done)

    return jax.lax.platform_dependent(batches, cpu=in_turn, default=lambda x: fn(x, *args))

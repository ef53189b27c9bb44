"""Iterations on many matrices, so few at a time that they stay in a processor's cache."""

import functools
from collections.abc import Callable
from typing import Any

import jax

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

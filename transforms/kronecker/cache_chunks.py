"""Iterations on many matrices, so few at a time that they stay in a processor's cache."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from .spreading import padded

CHUNK_BYTES = 2**16
"""Of one operand: an iteration has half a dozen arrays of that size at work."""


def by_cache_chunks(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of a batch of square matrices take them chunk by chunk on the CPU.

    There, a pass over a batch that is larger than the cache waits for the memory most of the time.
    Each chunk also stops iterating when its own matrices have converged.

    Args:
      fn: `(batch (b, n, n), ...) -> tree of arrays (b, ...)`, which treats every matrix on its
        own; further arguments are the same for all.
    """

    @functools.wraps(fn)
    def chunked(batch: Any, *args: Any, **kwargs: Any) -> Any:
        matrix = batch.shape[-1] ** 2 * batch.dtype.itemsize
        size = max(1, CHUNK_BYTES // max(matrix, 1))
        count = batch.shape[0]
        if count <= size:
            return fn(batch, *args, **kwargs)

        def one_by_one(batch: Any) -> Any:
            chunks = padded(batch, size).reshape(-1, size, *batch.shape[1:])
            done = jax.lax.map(lambda chunk: fn(chunk, *args, **kwargs), chunks)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], done)

        return jax.lax.platform_dependent(
            batch, cpu=one_by_one, default=lambda batch: fn(batch, *args, **kwargs)
        )

    return chunked

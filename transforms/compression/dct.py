"""The largest coefficients of chunks of a tensor in a cosine basis."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..notation.checks import checked
from ..notation.hyperparameters import Size
from ..notation.mapping import map_alike
from ..notation.values import Leaves
from .compressor import Coded, Message


@checked()
def chunked_dct(topk: Size = 32, chunk_size: Size = 64) -> Coded:
    """Sends the largest coefficients of every chunk in its orthonormal DCT-II, and their places.

    A compressor, for `compress` and `compress_with_error_feedback`. A vector is cut into chunks, a
    matrix into blocks, whose sides are the largest divisors of its own that are not above
    `chunk_size`; other tensors are the matrices of their first axis. In the mean over the workers
    a coefficient counts for those alone that sent it.

    Args:
      topk: how many of each chunk; all of them where there are fewer, and these then as the entries
        that they stand for, of which rounding leaves nothing behind.
      chunk_size: longest side of a chunk.
    """

    def encode(tree: Leaves, _: object) -> list[Message]:
        leaves = [x for x in tree.present() if x.size]
        return map_alike(lambda x: _largest(_transformed(x, chunk_size, topk), topk), leaves)

    def decode(messages: list[Message], like: Leaves, weights: jax.Array) -> Leaves:
        def restored(message: Message, x: jax.Array) -> jax.Array:
            return _restored(message, x, chunk_size, topk, weights)

        found = iter(map_alike(restored, messages, [x for x in like.present() if x.size]))
        return like.map(lambda x: next(found) if x.size else x)

    return Coded("chunked_dct", encode, decode, arguments={"topk": topk, "chunk_size": chunk_size})


def chunk_of(length: int, chunk_size: int) -> int:
    """The largest divisor of a length that is not above the size."""
    return next(h for h in range(min(length, chunk_size), 0, -1) if length % h == 0)


def cosines(length: int, dtype: DTypeLike) -> jax.Array:
    """The orthonormal DCT-II as a matrix, from entries (rows) to coefficients (columns)."""
    i, k = np.arange(length)[:, None], np.arange(length)[None, :]
    basis = np.cos(math.pi * (2 * i + 1) * k / (2 * length)) * math.sqrt(2 / length)
    basis[:, 0] = math.sqrt(1 / length)
    return jnp.asarray(basis, dtype)


def _layout(shape: tuple[int, ...], chunk_size: int) -> tuple[tuple[int, int], ...]:
    """(number of chunks, their length) along each side of the vector or matrix."""
    sides = (1,) if not shape else shape if len(shape) < 3 else (shape[0], math.prod(shape[1:]))
    chunks = [chunk_of(side, chunk_size) for side in sides]
    return tuple((side // h, h) for side, h in zip(sides, chunks, strict=True))


def _bases(layout: tuple[tuple[int, int], ...], topk: int, dtype: DTypeLike) -> list[jax.Array]:
    """One along each side; none where all coefficients are sent, whose mean is that of entries."""
    lengths = [h for _, h in layout]
    return [] if math.prod(lengths) <= topk else [cosines(h, dtype) for h in lengths]


def _transformed(x: jax.Array, chunk_size: int, topk: int) -> jax.Array:
    """The coefficients, one row for each chunk."""
    layout = _layout(x.shape, chunk_size)
    chunks = x.reshape([n for pair in layout for n in pair])
    if len(layout) == 2:
        chunks = chunks.swapaxes(1, 2)
    bases = _bases(layout, topk, x.dtype)
    if bases:
        rule = "ai,ik->ak" if len(layout) == 1 else "abij,ik,jl->abkl"
        chunks = jnp.einsum(rule, chunks, *bases, precision="highest")
    return chunks.reshape(-1, math.prod(h for _, h in layout))


def _largest(rows: jax.Array, topk: int) -> Message:
    length = rows.shape[1]
    places = jax.lax.top_k(jnp.abs(rows), min(topk, length))[1]
    kind = next(t for t in (jnp.uint8, jnp.uint16, jnp.uint32) if length - 1 <= jnp.iinfo(t).max)
    return {
        "places": places.astype(kind),
        "values": jnp.take_along_axis(rows, places, axis=1),
    }


def _restored(
    messages: Message, like: jax.Array, chunk_size: int, topk: int, weights: jax.Array
) -> jax.Array:
    layout = _layout(like.shape, chunk_size)
    count, length = (math.prod(side) for side in zip(*layout, strict=True))
    shares = weights.astype(jnp.finfo(like.dtype).dtype)[:, None, None]
    places = messages["places"].astype(jnp.int32)
    rows = jnp.arange(count)[None, :, None]
    summed = jnp.zeros((count, length), like.dtype)
    summed = summed.at[rows, places].add(shares * messages["values"].astype(like.dtype))
    senders = jnp.zeros((count, length), shares.dtype)
    senders = senders.at[rows, places].add(jnp.broadcast_to(shares, places.shape))
    means = jnp.where(senders > 0, summed / jnp.where(senders > 0, senders, 1), 0)
    sides, lengths = zip(*layout, strict=True)
    chunks = means.reshape(*sides, *lengths)
    bases = _bases(layout, topk, like.dtype)
    if bases:
        rule = "ak,ik->ai" if len(layout) == 1 else "abkl,ik,jl->abij"
        chunks = jnp.einsum(rule, chunks, *bases, precision="highest")
    if len(layout) == 2:
        chunks = chunks.swapaxes(1, 2)
    return chunks.reshape(like.shape)

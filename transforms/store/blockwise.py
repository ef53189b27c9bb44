"""Block-wise 8-bit codes of the dynamic kind."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from ..notation.checks import checked
from ..notation.known import is_known
from ..notation.roots import maximum_over
from ..notation.sharding import explicit_axes, replicated, resharded

EXPONENTS = 7


@functools.cache
def _codebook(signed: bool) -> np.ndarray:
    values = [0.0, 1.0]
    for i in range(EXPONENTS):
        edges = np.linspace(0.1, 1.0, 2 ** (i if signed else i + 1) + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (i - EXPONENTS + 1)
        values += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(values))


@checked()
def dynamic_codebook(signed: bool = True) -> np.ndarray:
    """The 256 values that a code stands for, increasing, relative to the largest of a block.

    A function of numbers.

    Seven powers of ten, the larger the more finely divided; 0 and 1 are among them, -1 is not.

    Args:
      signed: in [-1, 1], else in [0, 1].

    Example:
      >>> from gradchain.transforms.store import dynamic_codebook
      >>> book = dynamic_codebook()
      >>> len(book), float(book[0].round(5)), float(book[-1])
      (256, -0.99297, 1.0)

    References:
      Dettmers et al. 2021, 8-bit Optimizers via Block-wise Quantization (arXiv 2110.02861).
    """
    return _codebook(signed).copy()


@checked()
def quantize_blockwise(
    x: jax.Array, block_size: int, signed: bool = True, along_last_axis: bool = False
) -> tuple[jax.Array, jax.Array]:
    """The nearest codes to an array, and the largest magnitude of each block.

    A function of arrays.

    Args:
      x: an array; blocks are consecutive entries in row-major order, the last may be shorter.
      block_size: entries of a block, from 1 on.
      signed: which codebook.
      along_last_axis: blocks end with the rows of the last axis, and the codes are shaped like the
        array. An array that is spread over devices along other axes is then encoded where it lies,
        and so is one that is spread along its last axis in shards of whole blocks; flat blocks are
        encoded on every device in full.

    Returns:
      Codes (uint8, one per entry, flat unless along the last axis) and magnitudes (float32, one per
      block: along the last axis of shape `(*x.shape[:-1], blocks of a row)`).

    Raises:
      ValueError: for a block size below 1, or negative entries where the codebook has none.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.store import dequantize_blockwise, quantize_blockwise
      >>> x = jnp.array([[0.5, -2.0], [0.0, 1.0]])
      >>> codes, largest = quantize_blockwise(x, 2)
      >>> largest.tolist()
      [2.0, 1.0]
      >>> dequantize_blockwise(codes, largest, (2, 2), 2).round(2).tolist()[1]
      [0.0, 1.0]
    """
    if block_size < 1:
        raise ValueError(f"quantize_blockwise: block_size={block_size!r} must be at least 1")
    if not signed and is_known(x) and bool(np.any(np.asarray(x) < 0)):
        raise ValueError("quantize_blockwise: signed=False for an array with negative entries")
    lines = _lines(x, along_last_axis)
    blocks = _parted(lines.astype(jnp.float32), block_size)
    largest = maximum_over(jnp.abs(blocks), axis=-1)
    relative = blocks / jnp.where(largest > 0, largest, 1)[..., None]
    codes = _joined(_nearest(relative, signed), lines)
    return (resharded(codes.reshape(x.shape), x) if along_last_axis else codes), largest


@checked()
def dequantize_blockwise(
    codes: jax.Array,
    largest: jax.Array,
    shape: Sequence[int],
    block_size: int,
    signed: bool = True,
    along_last_axis: bool = False,
) -> jax.Array:
    """The float32 array that codes and magnitudes stand for; see `quantize_blockwise`.

    A function of arrays.

    Args:
      codes: one per entry.
      largest: one per block.
      shape: of the array.
      block_size, signed, along_last_axis: as it was quantised.
    """
    book = jnp.asarray(_codebook(signed), jnp.float32)
    lines = _lines(codes, along_last_axis)
    blocks = _parted(_entries(book, lines), block_size) * largest[..., None]
    found = _joined(blocks, lines).reshape(shape)
    return resharded(found, codes) if along_last_axis else found


def _lines(x: jax.Array, along_last_axis: bool) -> jax.Array:
    """The array with blocks along its last axis."""
    return jnp.atleast_1d(x) if along_last_axis else jnp.ravel(replicated(jnp.asarray(x)))


def _parted(lines: jax.Array, block_size: int) -> jax.Array:
    """The last axis as two: blocks, and the entries of each."""
    length = lines.shape[-1]
    block = max(min(block_size, length), 1)
    count = -(-length // block)
    if length == count * block:
        return _unspread(lines, count).reshape(*lines.shape[:-1], count, block)
    widths = [(0, 0)] * (lines.ndim - 1) + [(0, count * block - length)]
    padded = jnp.pad(_unspread(lines, count), widths)
    return padded.reshape(*lines.shape[:-1], count, block)


def _unspread(lines: jax.Array, count: int) -> jax.Array:
    """The array whole along its last axis, where the shards of an explicit mesh divide blocks."""
    if not explicit_axes(lines) or jax.typeof(lines).sharding.spec[-1] is None:
        return lines
    sharding = jax.typeof(lines).sharding
    names = sharding.spec[-1] if isinstance(sharding.spec[-1], tuple) else (sharding.spec[-1],)
    shards = math.prod(sharding.mesh.shape[name] for name in names)
    if count % shards == 0 and lines.shape[-1] % count == 0:
        return lines
    return jax.sharding.reshard(lines, PartitionSpec(*sharding.spec[:-1], None))


def _joined(blocks: jax.Array, lines: jax.Array) -> jax.Array:
    """Blocks as the lines that they were parted from."""
    *others, count, block = blocks.shape
    return blocks.reshape(*others, count * block)[..., : lines.shape[-1]]


def _nearest(relative: jax.Array, signed: bool) -> jax.Array:
    """The codes of the entries of the codebook that are nearest, by bisection."""
    book = _codebook(signed)
    middles = jnp.asarray((book[1:] + book[:-1]) / 2, jnp.float32)
    codes = jnp.zeros_like(relative, jnp.uint8)
    for power in reversed(range(8)):
        higher = codes + jnp.uint8(2**power)
        above = relative > _entries(middles, higher - jnp.uint8(1))
        codes = jnp.where(above, higher, codes)
    return codes


def _entries(table: jax.Array, indices: jax.Array) -> jax.Array:
    """Entries of a small table, spread over devices as the indices are."""
    sharding = jax.typeof(indices).sharding if explicit_axes(indices) else None
    return table.at[indices].get(out_sharding=sharding, mode="promise_in_bounds")

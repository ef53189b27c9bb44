"""Block-wise 8-bit codes of the dynamic kind."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

EXPONENTS = 7


@functools.cache
def _codebook(signed: bool) -> np.ndarray:
    values = [0.0, 1.0]
    for i in range(EXPONENTS):
        edges = np.linspace(0.1, 1.0, 2 ** (i if signed else i + 1) + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (i - EXPONENTS + 1)
        values += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(values))


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


def quantize_blockwise(x: Any, block_size: int, signed: bool = True) -> tuple[Any, Any]:
    """The nearest codes to an array, and the largest magnitude of each block.

    A function of arrays.

    Args:
      x: an array; blocks are consecutive entries in row-major order, the last may be shorter.
      block_size: entries of a block, from 1 on.
      signed: which codebook.

    Returns:
      Codes (uint8, one per entry, flat) and magnitudes (float32, one per block).

    Raises:
      ValueError: for a block size below 1.

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
    flat = jnp.ravel(x).astype(jnp.float32)
    count = -(-flat.size // block_size)
    rows = jnp.pad(flat, (0, count * block_size - flat.size)).reshape(count, block_size)
    largest = jnp.max(jnp.abs(rows), axis=1, initial=0.0)
    relative = rows / jnp.where(largest > 0, largest, 1)[:, None]
    book = _codebook(signed)
    middles = jnp.asarray((book[1:] + book[:-1]) / 2, jnp.float32)
    codes = jnp.searchsorted(middles, relative.ravel()[: flat.size])
    return codes.astype(jnp.uint8), largest


def dequantize_blockwise(
    codes: Any, largest: Any, shape: Sequence[int], block_size: int, signed: bool = True
) -> Any:
    """The float32 array that codes and magnitudes stand for; see `quantize_blockwise`.

    A function of arrays.

    Args:
      codes: flat, one per entry.
      largest: one per block.
      shape: of the array.
      block_size: as it was quantised.
      signed: which codebook.
    """
    values = jnp.asarray(_codebook(signed), jnp.float32)[codes]
    return (values * largest[jnp.arange(codes.size) // block_size]).reshape(shape)

"""A few bits for each entry."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation import draws
from ..notation.checks import checked
from ..notation.hyperparameters import Key, Size
from ..notation.roots import maximum_over
from ..notation.rows import sum_of_rows
from .compressor import Coded, Message, on_vectors


@checked()
def quantised(
    bits: Literal[2, 4, 8] = 8,
    block_size: Size = 256,
    stochastic: bool = True,
    per_leaf: bool = True,
    key: Key = 0,
) -> Coded:
    """Sends every entry in a few bits, and the largest magnitude of each block.

    A compressor, for `compress` and `compress_with_error_feedback`. Blockwise, with s the largest
    magnitude and n = 2^(bits - 1) - 1:

        C(x) = round(n x / s) s / n

    Args:
      bits: of an entry: 2, 4 or 8.
      block_size: entries that share a scale.
      stochastic: rounds up or down at random, unbiased; else to the nearest.
      per_leaf: blocks end with the leaves.
      key: seed or key of the draws, of which each worker makes its own.

    References:
      Alistarh et al. 2017, QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding
      (arXiv 1610.02132), where the scale is the norm and the code of variable length.
    """
    levels, per_byte = 2 ** (bits - 1) - 1, 8 // bits

    def encode(vector: jax.Array, key: Any) -> Message:
        rows = _blocks(vector, block_size)
        scale = maximum_over(jnp.abs(rows), axis=1)
        ratio = rows / jnp.where(scale > 0, scale, 1)[:, None] * levels
        dither = draws.uniform(key, rows.shape, rows.dtype) if stochastic else 0.5
        codes = jnp.clip(jnp.floor(ratio + dither) + levels, 0, 2 * levels).astype(jnp.uint8)
        return {"codes": _packed(codes.ravel()[: vector.size]), "scale": scale}

    def _packed(codes: jax.Array) -> jax.Array:
        shifts = (bits * jnp.arange(per_byte)).astype(jnp.uint8)
        filled = jnp.pad(codes, (0, -codes.size % per_byte)).reshape(-1, per_byte)
        return jnp.sum(filled << shifts, axis=1, dtype=jnp.uint8)

    def decode(messages: Message, length: int, dtype: DTypeLike, weights: jax.Array) -> jax.Array:
        shifts = (bits * jnp.arange(per_byte)).astype(jnp.uint8)
        mask = jnp.asarray(2**bits - 1, jnp.uint8)
        codes = ((messages["codes"][..., None] >> shifts) & mask).reshape(len(weights), -1)
        scale = messages["scale"][:, jnp.arange(length) // min(block_size, length)]
        signed = codes[:, :length].astype(dtype) - levels
        return sum_of_rows(weights.astype(dtype)[:, None] * scale * signed / levels)

    drawn = key if stochastic else None
    return on_vectors(
        "quantised", encode, decode, per_leaf, drawn, bits=bits, block_size=block_size
    )


def _blocks(vector: jax.Array, size: int) -> jax.Array:
    """The vector in rows of one block each, the last one filled up with zeros."""
    size = min(size, vector.size)
    return jnp.pad(vector, (0, -vector.size % size)).reshape(-1, size)

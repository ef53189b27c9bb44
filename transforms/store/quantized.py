"""State in block-wise 8 bits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.hyperparameters import Size
from ..notation.paths import Name
from ..notation.signal import Signal
from ..notation.steps import stateful
from .blockwise import dequantize_blockwise, quantize_blockwise
from .encoded import Coding, Select, encoded_cell, selector


class Quantized(NamedTuple):
    """A leaf in 8 bits: codes, and the largest magnitude of each block."""

    codes: jax.Array
    largest: jax.Array


@transformation()
def quantize_state(
    inner: optax.GradientTransformation,
    block_size: Size = 4096,
    min_size: Size = 4096,
    signed: bool | Callable[[tuple[Name, ...]], bool] = True,
    select: Select | None = None,
    along_last_axis: bool = False,
) -> Flow:
    """Keeps the state of a transformation in block-wise 8 bits between the steps.

    A transformation to send signals through.

        update, state = inner(decode(kept), g),   kept = encode(state)

    The update is computed from the state before it is rounded; arithmetic is that of `inner`.
    Entries below about 5e-7 of the largest of their block become 0: of a second moment under a
    root, so the eps of the inner optimizer matters.

    Args:
      inner: any transformation, Optax's included.
      block_size: consecutive entries, in row-major order, that share a magnitude.
      min_size: smaller leaves stay as they are.
      signed: whether a leaf takes the signed codebook, or a function of its path in the state; the
        unsigned one, for second moments, is finer. It is refused where the operations of `inner` do
        not exclude negative entries, so `inner` is to contain the square whose average is stored.
      select: `(path, leaf) -> bool`: which floating leaves are kept in 8 bits; default those with
        the shape of a param and `min_size` entries.
      along_last_axis: blocks end with the rows of the last axis, and codes are shaped like the
        leaf. On a mesh nothing is then communicated, for leaves that are spread along other axes,
        or along the last one in shards of whole blocks; flat blocks are encoded everywhere in full.

    Returns:
      The wrapped transformation; its state is a byte per entry, and 4 bytes per block.

    Raises:
      ValueError: for a hyper-parameter out of range, or the unsigned codebook for a leaf that can
        become negative, as far as the operations of `inner` show it.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.transforms.store import quantize_state
      >>> x = jnp.zeros((64, 64))
      >>> state = quantize_state(optax.adam(1e-3)).init(x)
      >>> optax.tree_utils.tree_get(state, "mu").codes.nbytes
      4096

    References:
      Dettmers et al. 2021, 8-bit Optimizers via Block-wise Quantization (arXiv 2110.02861), as in
      the 8-bit variants of COAP.
    """

    def is_signed(path: tuple[Name, ...]) -> bool:
        return signed(path) if callable(signed) else signed

    def encode(path: tuple[Any, ...], leaf: jax.Array, _: object) -> Quantized:
        form = block_size, is_signed(path), along_last_axis
        return Quantized(*quantize_blockwise(leaf, *form))

    def decode(path: tuple[Any, ...], kept: Any, leaf: Any) -> Any:
        codes, largest = jax.tree.leaves(kept)
        form = block_size, is_signed(path), along_last_axis
        return dequantize_blockwise(codes, largest, leaf.shape, *form).astype(leaf.dtype)

    coding = Coding(encode, decode, lambda path: not is_signed(path))

    def step(g: Signal) -> Signal:
        return stateful(encoded_cell(inner, selector(select, min_size), coding), g)

    return flow(step)

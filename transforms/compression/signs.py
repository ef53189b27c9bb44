"""One bit for each entry."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation.checks import checked
from ..notation.rows import sum_of_rows
from .compressor import Coded, Message, on_vectors


@checked()
def scaled_sign(per_leaf: bool = True) -> Coded:
    """Sends the sign of every entry, a bit each, and the mean magnitude.

    A compressor, for `compress` and `compress_with_error_feedback`.

        C(x) = sign(x) mean |x|,    sign(0) = 1

    Args:
      per_leaf: a mean for each leaf; else one for the whole tree.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.compression import compress, scaled_sign
      >>> opt = compress(scaled_sign())
      >>> g = jnp.array([1.0, -3.0, 2.0])
      >>> opt.update(g, opt.init(g))[0].tolist()
      [2.0, -2.0, 2.0]

    References:
      Karimireddy et al. 2019, Error Feedback Fixes SignSGD and other Gradient Compression Schemes
      (arXiv 1901.09847).
    """

    def encode(vector: jax.Array, _: jax.Array | None) -> Message:
        return {"bits": jnp.packbits(vector >= 0), "scale": jnp.mean(jnp.abs(vector))}

    def decode(messages: Message, length: int, dtype: DTypeLike, weights: jax.Array) -> jax.Array:
        bits = jnp.unpackbits(messages["bits"], axis=-1, count=length)
        signs = 2 * bits.astype(dtype) - 1
        return sum_of_rows((messages["scale"] * weights.astype(dtype))[:, None] * signs)

    return on_vectors("scaled_sign", encode, decode, per_leaf)

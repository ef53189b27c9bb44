"""The orthogonal factor of a matrix."""

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.checks import checked


@checked()
def polar_factor(matrix: jax.Array) -> jax.Array:
    """U V^T of the singular value decomposition U S V^T: all singular values become 1.

    A function of arrays.

    Directions of singular value 0 (to rounding) are left out, so that zero stays zero.

    Args:
      matrix: array with at least two axes, the last two being the matrix.
    """
    if matrix.size == 0:
        return matrix
    u, s, vt = linalg.svd(matrix)
    smallest = jnp.max(s, axis=-1, keepdims=True) * max(matrix.shape[-2:]) * jnp.finfo(s.dtype).eps
    return jnp.matmul(u * (s > smallest)[..., None, :], vt, precision="highest")

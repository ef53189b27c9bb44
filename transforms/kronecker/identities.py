"""Identity matrices for stacks of matrices."""

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.sharding import resharded
from ..notation.sides import by_side


@by_side
@checked()
def identity_like(matrix: jax.Array) -> jax.Array:
    """Identity matrices in the shape of `matrix`; the start of a delay of factors.

    A function of arrays.
    """
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return resharded(jnp.broadcast_to(eye, matrix.shape) + 0, matrix)


def identity_beside(matrices: jax.Array) -> jax.Array:
    """One identity matrix that can be added to each of `matrices`, of as many axes as they have.

    Where `jax_numpy_rank_promotion` is "raise", leading axes are not made up on the way.
    """
    eye = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    return eye.reshape((1,) * (matrices.ndim - 2) + eye.shape)


def diagonal_matrices(values: jax.Array) -> jax.Array:
    """Matrices with the given diagonals; all but the last axis are those of a stack."""
    rows = values[..., None, :]
    return rows * identity_beside(rows)

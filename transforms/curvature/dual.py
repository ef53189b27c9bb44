"""Systems of full size solved in the space of the examples.

By the push-through identity R^T (R R^T + s I)^{-1} = (R^T R + s I)^{-1} R^T, a system in the
parameters whose right-hand side the rows of R span costs one in their number.
"""

from functools import partial

import jax
import jax.numpy as jnp

from ..notation import linalg

matmul = partial(jnp.matmul, precision="highest")
"""Products of which systems are made: never in the reduced precision of an accelerator."""

ROUNDING_STEPS = 16
"""How many times the last bit of its largest entry a matrix may be wrong by."""


def above_rounding(damping: float | jax.Array, matrix: jax.Array) -> jax.Array:
    """What is added to a matrix of low rank, at least what its own rounding adds at random.

    Less than that makes the directions of no curvature whatever rounding leaves of them, or the
    matrix singular.
    """
    largest = jnp.max(jnp.abs(jnp.diagonal(matrix)), initial=0)
    return jnp.maximum(
        jnp.asarray(damping, matrix.dtype), ROUNDING_STEPS * jnp.finfo(matrix.dtype).eps * largest
    )


def dual_solve(
    gram: jax.Array, shift: float | jax.Array, rhs: jax.Array, *, symmetric: bool = True
) -> jax.Array:
    """(K + shift I)^{-1} rhs.

    Args:
      gram: K = R R^T, positive semidefinite, or Q R R^T.
      shift: positive scalar.
      rhs: vector.
      symmetric: whether K is.

    Returns:
      The solution, which is not a number where the matrix is singular.
    """
    matrix = gram + shift * jnp.eye(gram.shape[0], dtype=gram.dtype)
    if not symmetric:
        return linalg.solve(matrix, rhs)
    return linalg.cho_solve(linalg.cholesky(matrix), rhs)

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
    return _above(damping, jnp.max(jnp.abs(jnp.diagonal(matrix)), initial=0))


def above_rounding_of_rows(damping: float | jax.Array, gram: jax.Array) -> jax.Array:
    """The same for each row of R R^T by itself: a long row of R adds nothing to a short one.

    Rounding of a product is in proportion to the lengths of both rows, so that with what is added
    to each by its own the matrix stays positive.
    """
    return _above(damping, jnp.abs(jnp.diagonal(gram)))


def _above(damping: float | jax.Array, largest: jax.Array) -> jax.Array:
    rounding = ROUNDING_STEPS * jnp.finfo(largest.dtype).eps * largest
    return jnp.maximum(jnp.asarray(damping, largest.dtype), rounding)


def dual_solve(
    gram: jax.Array, shift: float | jax.Array, rhs: jax.Array, *, symmetric: bool = True
) -> jax.Array:
    """(K + shift I)^{-1} rhs.

    Args:
      gram: K = R R^T, positive semidefinite, or Q R R^T.
      shift: positive scalar, or one for each row.
      rhs: vector.
      symmetric: whether K is.

    Returns:
      The solution, which is not a number where the matrix is singular.
    """
    matrix = gram + jnp.diag(jnp.broadcast_to(shift, gram.shape[:1]))
    if not symmetric:
        return linalg.solve(matrix, rhs)
    return linalg.cho_solve(linalg.cholesky(matrix), rhs)

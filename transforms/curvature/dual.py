"""Systems of full size solved in the space of the examples.

By the push-through identity R^T (R R^T + s I)^{-1} = (R^T R + s I)^{-1} R^T, a system in the
parameters whose right-hand side the rows of R span costs one in their number.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.functions import lift

matmul = partial(jnp.matmul, precision="highest")
"""Products of which systems are made: never in the reduced precision of an accelerator."""


def dual_solve(gram: Any, shift: Any, rhs: Any, *, symmetric: bool = True) -> Any:
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
        return jnp.linalg.solve(matrix, rhs)
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), rhs)


def _gram_updated(gram: Any, rows: Any, slot: Any) -> Any:
    products = matmul(rows, rows[slot])
    return gram.at[slot, :].set(products).at[:, slot].set(products)


gram_update = lift(_gram_updated, "gram_update")
"""`gram_update(gram, rows, slot)`: R R^T after the row `slot` of R has changed."""

gram_like = lift(lambda rows: jnp.zeros((len(rows), len(rows)), rows.dtype), "gram_like")
"""`gram_like(rows)`: zeros in the shape of R R^T."""


def _newest_solved(rows: Any, gram: Any, slot: Any, damping: Any) -> Any:
    size = len(rows)
    newest = (jnp.arange(size) == slot).astype(rows.dtype)
    x = size * matmul(dual_solve(gram, size * damping, newest), rows)
    return x


def _newest_alone(rows: Any, slot: Any, damping: Any) -> Any:
    size = len(rows)
    return size * rows[slot] / (size * damping + jnp.sum(rows[slot] ** 2))


window_solve = lift(_newest_solved, "window_solve")
"""`window_solve(rows, gram, slot, damping)`: (damping I + R^T R / m)^{-1} times row `slot` of R.

For m rows. Since the right-hand side is itself a row, this is m R^T (R R^T + m damping I)^{-1} e:
no difference is taken, so no digits are lost to a small damping. Not a number where rounding
has made the system singular.
"""

lone_solve = lift(_newest_alone, "lone_solve")
"""`lone_solve(rows, slot, damping)`: the same without the other rows; always finite."""

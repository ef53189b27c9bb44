"""Solving with a window of gradients through the matrix of their inner products."""

import jax
import jax.numpy as jnp

from ....transforms import lift
from ....transforms.curvature.dual import above_rounding_of_rows, dual_solve, matmul


def _gram_updated(gram: jax.Array, rows: jax.Array, slot: jax.Array) -> jax.Array:
    # Rows are numbers, so NaN is what opposite products that overflow sum to.
    products = matmul(rows, rows[slot])
    products = jnp.where(jnp.isnan(products), 0, products)
    return gram.at[slot, :].set(products).at[:, slot].set(products)


gram_update = lift(
    _gram_updated,
    "gram_update",
    doc="`gram_update(gram, rows, slot)`: R R^T after the row `slot` of R has changed.",
)

gram_like = lift(
    lambda rows: jnp.zeros((len(rows), len(rows)), rows.dtype),
    "gram_like",
    doc="`gram_like(rows)`: zeros in the shape of R R^T.",
)


def _newest_solved(
    rows: jax.Array, gram: jax.Array, slot: jax.Array, damping: float | jax.Array
) -> jax.Array:
    size = len(rows)
    newest = (jnp.arange(size) == slot).astype(rows.dtype)
    shift = above_rounding_of_rows(size * damping, gram)
    return size * matmul(dual_solve(gram, shift, newest), rows)


def _newest_alone(rows: jax.Array, slot: jax.Array, damping: float | jax.Array) -> jax.Array:
    size = len(rows)
    return size * rows[slot] / (size * damping + jnp.sum(rows[slot] ** 2))


window_solve = lift(
    _newest_solved,
    "window_solve",
    doc="`window_solve(rows, gram, slot, damping)`: (damping I + R^T R / m)^{-1} times "
    "row `slot` of R. For m rows. Since the right-hand side is itself a row, this is "
    "m R^T (R R^T + m damping I)^{-1} e: no difference is taken, so no digits are "
    "lost to a small damping. What is added is at least the rounding of a row's products.",
)

lone_solve = lift(
    _newest_alone,
    "lone_solve",
    doc="`lone_solve(rows, slot, damping)`: the same without the other rows; always finite.",
)

"""Subspaces that follow the gradients by gradient descent."""

import jax
import jax.numpy as jnp
import optax

from ..control.periods import when
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.crowds import of_stacks
from ..notation.functions import lift, lift_tree, where
from ..notation.hyperparameters import NonNegative, Positive, Size
from ..notation.mapping import map_leaves
from ..notation.packing import choose_leaves
from ..notation.roots import norm, smooth_quotient
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled, step_count
from ..notation.values import Leaves
from .bases import Basis
from .spanned import leading_rows, one_sided, oriented


@transformation()
def descending_basis(
    rank: Size,
    optimizer: optax.GradientTransformation,
    step_size: NonNegative,
    slowness: Positive = 1.0,
    decay: NonNegative = 0.0,
    orthogonality_penalty: NonNegative = 0.0,
) -> Flow:
    """Vectors that start at the leading singular ones and descend on what they leave out.

    A transformation to send signals through.

        J(P) = |G P^T P - G|^2 + penalty |P P^T - I|^2,   G = g_t / |g_t|
        P_{t+1} = (1 - e decay) P_t - e optimizer(grad J(P_t)),   e = step_size / slowness

    for matrices with at least as many rows as columns, of others for the transposed. What is given
    is P_t; P_2 = P_1.

    Args:
      rank: how many vectors, at most the smaller dimension.
      optimizer: any transformation that gives a direction; it runs from the second step on.
      step_size: number, schedule or scalar signal.
      slowness: what it is divided by.
      decay: of the vectors.
      orthogonality_penalty: see above; they are never made orthonormal again.

    References:
      Liang et al. 2024, Online Subspace Descent (arXiv 2408.12857).
    """

    def step(g: Signal) -> Signal:
        past = delay(lift(empty_rows, "rows")(g, rank=rank), name="projection")
        rows = lift_tree(_first_leading, "rows", out=1)(g, past, step_count(), rank=rank)
        slope = lift(_slope, "slope")(g, rows, orthogonality_penalty)
        direction = slope >> when(step_count() > 1, optimizer, otherwise=0.0)
        size = scheduled(step_size) / scheduled(slowness)
        past << where(
            step_count() > 1, (1 - size * scheduled(decay)) * rows - size * direction, rows
        )
        return lift(rows_as_basis, "basis")(g, rows)

    return flow(step)


def empty_rows(matrix: jax.Array, rank: int) -> jax.Array:
    """Zeros in the shape of the vectors of a matrix, as rows."""
    return jnp.zeros((rank, min(matrix.shape)), matrix.dtype)


def rows_as_basis(matrix: jax.Array, rows: jax.Array) -> Basis:
    """The basis on the side of the matrix that is projected away."""
    return one_sided(rows, matrix.shape[0] >= matrix.shape[1])


@of_stacks
def _first_leading(g: Leaves, past: Leaves, t: jax.Array, rank: int) -> Leaves:
    def leading() -> Leaves:
        def of_leaf(x: jax.Array, old: jax.Array) -> jax.Array:
            return leading_rows(oriented(x), rank).astype(old.dtype)

        return map_leaves(of_leaf, g, past)

    found: Leaves = choose_leaves(t == 1, leading, lambda: past)
    return found


def _slope(matrix: jax.Array, rows: jax.Array, penalty: float | jax.Array) -> jax.Array:
    """The gradient of J; 0 where the matrix is."""
    x = oriented(replicated(matrix))
    size = norm(x)
    x = smooth_quotient(x, jnp.where(size > 0, size, 1))
    low = x @ rows.conj().T
    left_out = low @ rows - x
    slope = 2 * (low.conj().T @ left_out + (left_out @ rows.conj().T).conj().T @ x)
    overlap = rows @ rows.conj().T - jnp.eye(len(rows), dtype=rows.dtype)
    return slope + 4 * penalty * (overlap @ rows)

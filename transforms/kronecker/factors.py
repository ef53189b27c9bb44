"""Kronecker factors: second moments, their inverses, and products from both sides."""

from typing import Any

import jax
import jax.numpy as jnp

from ..curvature.safeguards import all_finite
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift, reduce_leaves
from ..notation.signal import Signal
from ..notation.steps import delay, tap
from .grouped import per_matrix


def identity_like(matrix: Any) -> Any:
    """Identity matrices in the shape of `matrix`; the start of a delay of factors."""
    return jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape) + 0


def _gram(rows: Any, weight: Any = 1.0) -> Any:
    return weight * jnp.swapaxes(rows, -1, -2) @ rows


@transformation()
def factor_average(decay: Any) -> Flow:
    """The moving average of factors, started at the identity.

        S_t = decay S_{t-1} + (1 - decay) M_t,    S_0 = I

    A moment that is not finite leaves the average as it was; the tap "statistics_are_finite" says
    so.

    Args:
      decay: in [0, 1).
    """

    def step(moment: Signal) -> Signal:
        past = delay(moment, identity_like)
        tap("statistics_are_finite", all_finite(moment))
        return past << finite_or(decay * past + (1 - decay) * moment, past)

    return flow(step)


second_moment = lift(lambda rows: _gram(rows, 1 / max(rows.shape[-2], 1)), "second_moment")
"""A^T A / N: the mean over the rows of their outer products."""

mean_loss_moment = lift(lambda rows: _gram(rows, rows.shape[-2]), "mean_loss_moment")
"""N D^T D: the same of the rows N d, the per-example gradients of a mean loss."""

sandwich = lift(lambda left, x, right: left @ x @ right, "sandwich")
"""left X right."""


def _inverse(matrices: Any) -> Any:
    lower = jnp.linalg.cholesky(matrices)
    root = jax.lax.linalg.triangular_solve(
        lower, identity_like(matrices), left_side=True, lower=True
    )
    return jnp.swapaxes(root, -1, -2) @ root


positive_inverse = per_matrix(_inverse, "positive_inverse")
"""The inverse of every positive definite matrix, NaN where it is not definite."""


def _damped(matrix: Any, damping: Any) -> Any:
    return matrix + damping * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)


damped = lift(_damped, "damped")
"""S + damping I."""


def _eigenbasis(matrices: Any) -> tuple[Any, Any]:
    values, vectors = jnp.linalg.eigh(matrices)
    return values, vectors


eigenbasis = per_matrix(_eigenbasis, "eigenbasis")
"""The pair of eigenvalues and eigenvectors (columns) of every symmetric matrix."""


def _is_finite(x: Any) -> Any:
    return jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True)


def _finite_or(x: Any, other: Any) -> Any:
    if hasattr(x, "dtype"):
        return jnp.where(_is_finite(x), x, other)
    parts = [jnp.all(jnp.isfinite(part)) for part in jax.tree.leaves(x)]
    finite = jnp.all(jnp.stack(parts))
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), x, other)


finite_or = lift(_finite_or, "finite_or")
"""Each matrix where all of its entries are finite, else the other; tuples stand or fall as one."""

count_not_finite = reduce_leaves(
    lambda x: jnp.sum(~_is_finite(x), dtype=jnp.finfo(x.dtype).dtype), "count_not_finite"
)
"""How many matrices of a layer signal have an entry that is not finite."""


def finite_or_plain(x: Signal, plain: Signal) -> Signal:
    """The preconditioned matrices, where they are finite, else the plain ones.

    The tap "fallbacks" counts the layers that fell back at this step.

    Args:
      x: layer signal.
      plain: layer signal of the same shapes.
    """
    tap("fallbacks", count_not_finite(x))
    return finite_or(x, plain)


def _rank_one_inverse(inverse: Any, u: Any, old: Any = 1.0, new: Any = 1.0) -> Any:
    moved = inverse @ u[..., None]
    turned = jnp.swapaxes(moved, -1, -2)
    return (inverse - new * moved * turned / (old + new * (u[..., None, :] @ moved))) / old


rank_one_inverse = lift(_rank_one_inverse, "rank_one_inverse")
"""Sherman-Morrison: the inverse of `old S + new u u^T` from J = S^{-1}, symmetric."""


def _blend_identity(matrix: Any, weight: Any) -> Any:
    return weight * matrix + (1 - weight) * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)


blend_identity = lift(_blend_identity, "blend_identity")
"""weight M + (1 - weight) I."""

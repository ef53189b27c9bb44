"""Kronecker factors: second moments, their inverses, and products from both sides."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..curvature.safeguards import all_finite
from ..notation import linalg
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import lift, lift_elementwise, lift_tree, reduce_leaves
from ..notation.hyperparameters import Decay
from ..notation.known import choose
from ..notation.mapping import in_batches
from ..notation.roots import maximum_over, saturated
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled, step_count, tap
from ..notation.values import Leaves
from .grouped import flattened, per_matrix, solve_grouped
from .identities import identity_beside, identity_like
from .spreading import spread_batch


def _gram(rows: jax.Array, weight: float | jax.Array = 1.0) -> jax.Array:
    return weight * jnp.swapaxes(rows, -1, -2) @ rows


@transformation()
def factor_average(decay: Decay) -> Flow:
    """The moving average of factors, started at the identity.

    A transformation to send signals through.

        S_t = decay S_{t-1} + (1 - decay) M_t,    S_0 = I

    A moment that is not finite leaves the average as it was; the tap "statistics_are_finite" says
    so.

    Args:
      decay: in [0, 1).
    """

    def step(moment: Signal) -> Signal:
        past = delay(moment, identity_like)
        tap("statistics_are_finite", all_finite(moment))
        return past << finite_or(decay * past + (1 - scheduled(decay)) * moment, past)

    return flow(step)


second_moment = lift_elementwise(
    lambda rows: _gram(rows, 1 / max(rows.shape[-2], 1)),
    "second_moment",
    doc="A^T A / N: the mean over the rows of their outer products.",
)

mean_loss_moment = lift(
    lambda rows: _gram(rows, rows.shape[-2]),
    "mean_loss_moment",
    doc="N D^T D: the same of the rows N d, the per-example gradients of a mean loss.",
)

sandwich = lift(
    lambda left, x, right: left @ x @ right,
    "sandwich",
    doc="left X right.",
)


def _inverse(matrices: jax.Array) -> jax.Array:
    lower = linalg.cholesky(matrices)
    root = linalg.solve_triangular(lower, identity_like(matrices), lower=True)
    return jnp.swapaxes(root, -1, -2) @ root


positive_inverse = per_matrix(
    _inverse,
    "positive_inverse",
    doc="The inverse of every positive definite matrix, NaN where it is not definite.",
)


def _damped(matrix: jax.Array, damping: float | jax.Array) -> jax.Array:
    diagonal = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    last_bit = jnp.finfo(matrix.dtype).eps * maximum_over(diagonal, -1)[..., None, None]
    rounding = matrix.shape[-1] ** 0.5 * last_bit
    at_least = jnp.where(jnp.asarray(damping) > 0, jnp.maximum(damping, rounding), damping)
    return matrix + at_least * identity_beside(matrix)


damped = lift_elementwise(
    _damped,
    "damped",
    doc="S + damping I, damping, if any, at least what S is rounded by: else the inverse is noise "
    "where S, of low rank, is nothing.",
)


def _eigenbasis(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = linalg.eigh(matrices)
    return values, vectors


eigenbasis = per_matrix(
    _eigenbasis,
    "eigenbasis",
    doc="The pair of eigenvalues and eigenvectors (columns) of every symmetric matrix.",
)


@transformation()
def eigenvectors(warm_start: bool = True) -> Flow:
    """The eigenvectors of every symmetric matrix, as the columns of an orthogonal one.

    A transformation to send signals through.

    At the first run they are computed. With `warm_start`, each later run is one step of orthogonal
    iteration from those before, a matrix product and a QR decomposition:

        Q_t = QR(M_t Q_{t-1})

    with the columns decomposed in the order of their Rayleigh quotients, largest first, and put
    back in their places. So what is kept per direction, a second moment in the eigenbasis say,
    stays with its direction. Differentiation takes the vectors for constants. A matrix that is not
    finite leaves the vectors as they were.

    Args:
      warm_start: go on from the last vectors; otherwise all are computed anew.

    References:
      Vyas et al. 2024, SOAP: Improving and Stabilizing Shampoo using Adam (arXiv 2409.11321),
      Algorithm 4.
    """

    def step(matrices: Signal) -> Signal:
        past = delay(matrices)
        anew = step_count() == 1 if warm_start else True
        return past << _tracked(matrices, past, anew)

    return flow(step)


def _track(matrices: Leaves, past: Leaves, anew: jax.Array) -> Leaves:
    def solve(kind: tuple[int, DTypeLike], batch: jax.Array, basis: jax.Array) -> jax.Array:
        return choose(
            anew, partial(spread_batch, _solved), partial(spread_batch, _iterated), (basis, batch)
        )

    def tracked(rows: list[tuple[Any, ...]]) -> list[Any]:
        sides = ([row[i] for row in rows] for i in range(2))
        arrays, olds = (jax.tree.leaves(jax.lax.stop_gradient(side)) for side in sides)
        batches, bases = (list(map(flattened, side)) for side in (arrays, olds))
        kinds = [(x.shape[-1], x.dtype) for x in batches]
        found = solve_grouped(solve, kinds, batches, bases)
        shaped = [x.reshape(like.shape) for x, like in zip(found, arrays, strict=True)]
        made: list[Any] = jax.tree.unflatten(jax.tree.structure([m for m, _ in rows]), shaped)
        return made

    return in_batches(tracked, matrices, past)


def _renewing(solve: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[Any], jax.Array]:
    """Of pairs (vectors, matrices) the vectors as they are after this, or were if it fails."""

    @linalg.one_by_one
    def renewed(basis: jax.Array, matrices: jax.Array) -> jax.Array:
        basis, matrices = saturated(basis), saturated(matrices)
        found = solve(matrices, basis)
        return jnp.where(_is_finite(found), found, basis)

    return lambda pair: renewed(*pair)


@_renewing
def _solved(matrices: jax.Array, _: jax.Array) -> jax.Array:
    return linalg.eigh(matrices)[1]


@_renewing
def _iterated(matrices: jax.Array, basis: jax.Array) -> jax.Array:
    moved = jnp.matmul(matrices, basis, precision="highest")
    quotients = jnp.sum((basis.conj() * moved).real, axis=-2, keepdims=True)
    order = jnp.argsort(-quotients, axis=-1)
    vectors, upper = linalg.qr(jnp.take_along_axis(moved, order, axis=-1))
    # With a positive diagonal, every column goes on in the direction that it had.
    vectors = vectors * jnp.where(jnp.diagonal(upper, axis1=-2, axis2=-1) < 0, -1, 1)[..., None, :]
    return jnp.take_along_axis(vectors, jnp.argsort(order, axis=-1), axis=-1)


_track.of_any = _track  # type: ignore[attr-defined]
_tracked = lift_tree(_track, "eigenvectors", out=0)


def _is_finite(x: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True)


finite_or = lift_elementwise(
    lambda x, other: jnp.where(_is_finite(x), x, other),
    "finite_or",
    doc="Each matrix where all of its entries are finite, else the other.",
)


def _all_finite_or(x: Any, other: Any) -> Any:
    parts = [jnp.all(jnp.isfinite(part)) for part in jax.tree.leaves(x)]
    finite = jnp.all(jnp.stack(parts))
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), x, other)


all_finite_or = lift(
    _all_finite_or,
    "all_finite_or",
    doc="The leaf where all entries of all of its sides are finite, else the other.",
)

count_not_finite = reduce_leaves(
    lambda x: jnp.sum(~_is_finite(x), dtype=jnp.finfo(x.dtype).dtype),
    "count_not_finite",
    doc="How many matrices of a layer signal have an entry that is not finite.",
)


@checked()
def finite_or_plain(x: Signal, plain: Signal) -> Signal:
    """The preconditioned matrices, where they are finite, else the plain ones.

    A function of signals.

    The tap "fallbacks" counts the layers that fell back at this step.

    Args:
      x: layer signal.
      plain: layer signal of the same shapes.
    """
    tap("fallbacks", count_not_finite(x))
    return finite_or(x, plain)


def _rank_one_inverse(
    inverse: jax.Array, u: jax.Array, old: float | jax.Array = 1.0, new: float | jax.Array = 1.0
) -> jax.Array:
    moved = inverse @ u[..., None]
    turned = jnp.swapaxes(moved, -1, -2)
    return (inverse - new * moved * turned / (old + new * (u[..., None, :] @ moved))) / old


rank_one_inverse = lift_elementwise(
    _rank_one_inverse,
    "rank_one_inverse",
    doc="Sherman-Morrison: the inverse of `old S + new u u^T` from J = S^{-1}, symmetric.",
)


def _blend_identity(matrix: jax.Array, weight: float | jax.Array) -> jax.Array:
    return weight * matrix + (1 - weight) * identity_beside(matrix)


blend_identity = lift_elementwise(
    _blend_identity,
    "blend_identity",
    doc="weight M + (1 - weight) I.",
)

"""Dynamical low-rank training."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Fraction,
    Signal,
    Size,
    flow,
    named,
    scheduled,
    transformation,
)
from ...transforms.closures import gradient_at
from ...transforms.notation import linalg
from ...transforms.notation.sharding import replicated, resharded
from ...transforms.notation.values import MISSING
from ...transforms.subspaces import LowRank, at_low_rank, orthonormal


@method(
    "Schotthoefer et al. 2022, Low-rank lottery tickets: finding efficient low-rank neural "
    "networks via matrix differential equations",
    arxiv="2205.13571",
    tags=("low-memory", "low-rank", "matrix", "closure"),
    learning_rate=0.05,
    required={"rank": 2},
)
@transformation()
def dlrt(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size,
    tolerance: Fraction | None = None,
    min_rank: Size = 2,
    max_rank: Size | None = None,
    inner: optax.GradientTransformation | None = None,
) -> Flow:
    r"""Trains matrices that are held in factors of low rank, and never as a whole.

    Params may have leaves `gradchain.transforms.subspaces.LowRank(u, s, v)` for matrices
    W = u s v^T, with orthonormal columns in u and v. A step of gradient descent, with G the
    gradient of the loss by W at the params:

    .. math::
        K &= U S - \eta\, G V, \qquad L = V S^T - \eta\, G^T U \\
        U_1 &= \mathrm{basis}(K), \qquad V_1 = \mathrm{basis}(L) \\
        \tilde S &= (U_1^T U)\, S\, (V_1^T V)^T \\
        S_1 &= \tilde S - \eta\, U_1^T G(U_1 \tilde S V_1^T) V_1

    With a tolerance the bases are those of [K, U] and [L, V], and U_1 S_1 V_1^T is cut to the
    smallest rank at which the singular values left out have a norm of at most `tolerance` times
    that of all. All other leaves take their ordinary step with the second gradient, that at the
    matrices in their new bases. No inverse of S is needed.

    Ranks that change need room: factors are given as `LowRank(...).padded(max_rank)`, and columns
    of zeros are no part of the matrix. `LowRank.rank()` counts the others.

    Args:
      learning_rate: eta; number or schedule.
      rank: columns of the factors; with a tolerance at the start, at most those there is room for.
      tolerance: relative norm of what is cut off at each step, in [0, 1]; None: the rank is fixed.
      min_rank: lower bound of the rank, with a tolerance.
      max_rank: upper bound of it; default all columns of the factors.
      inner: direction of all steps, such as `optax.scale_by_adam()`; default the gradient. Its
        state is read in bases that move, so that anything but the gradient is a heuristic.

    Returns:
      The optimizer; it needs `params` and `value_fn`, the loss of this very batch, or `grad_fn`,
      at params in which the factors of `LowRank` leaves may have other numbers of columns. What
      comes in as gradients is not used. Its state is that of `inner`: for K and L, and for S and
      the other leaves.

    Raises:
      ValueError: for a hyper-parameter out of range; in `init`, for factors of another rank.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from gradchain.optimizers import dlrt
      >>> from gradchain.transforms.subspaces import factored
      >>> loss = lambda w: jnp.sum((w.matrix() - jnp.eye(3)) ** 2) / 2
      >>> params = factored(jnp.diag(jnp.array([3.0, 2.0, 0.0])), rank=2)
      >>> opt = dlrt(0.5, rank=2)
      >>> updates, _ = opt.update(params, opt.init(params), params, value_fn=loss)
      >>> print(optax.apply_updates(params, updates).matrix().round(2) + 0.0)
      [[2.  0.  0. ]
       [0.  1.5 0. ]
       [0.  0.  0. ]]

    References:
      Schotthoefer et al. 2022 (arXiv 2205.13571); Ceruti & Lubich 2022, An unconventional robust
      integrator for dynamical low-rank approximation. We follow the papers: in the authors' code
      the adaptive step leaves the last singular value out of the norm that is cut off, turns V by
      the transposed rotation and caps the rank at half the shorter side; with a fixed rank its Adam
      also averages zeros in between.
    """
    rule = flow(lambda g: g) if inner is None else inner
    is_fixed = tolerance is None
    check = partial(_checked, rank=rank, min_rank=min_rank, is_fixed=is_fixed)

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, grad_fn: Signal | None = None
    ) -> Signal:
        eta = scheduled(learning_rate)
        held = at_low_rank(check)(params)
        slopes = gradient_at(at_low_rank(_in_two_halves)(held), value_fn, grad_fn)
        moved = at_low_rank(_of_bases, _nothing)(held, slopes) >> named("bases", rule)
        turned = at_low_rank(_turned if is_fixed else _extended)(held, moved, eta)
        slopes = gradient_at(turned, value_fn, grad_fn)
        rest = at_low_rank(_of_core, _second)(held, slopes) >> named("core", rule)
        new = at_low_rank(_stepped, _descended)(turned, rest, eta)
        if tolerance is not None:
            new = at_low_rank(partial(_cut, min_rank=min_rank, max_rank=max_rank), _second)(
                held, new, scheduled(tolerance)
            )
        return at_low_rank(_like, _second)(held, new) - params

    return flow(step)


def _checked(w: LowRank, rank: int, min_rank: int, is_fixed: bool) -> LowRank:
    columns = w.s.shape[0]
    m, n = len(w.u), len(w.v)
    if is_fixed and columns != rank:
        raise FlowError(
            f"dlrt: rank={rank}, but factors of a {(m, n)} matrix have {columns} columns"
        )
    if not max(rank, 1 if is_fixed else min_rank) <= columns <= min(m, n):
        raise FlowError(
            f"dlrt: factors of a {(m, n)} matrix have {columns} columns; they may have from "
            f"rank={rank} or min_rank={min_rank} to {min(m, n)}"
        )
    return w


def _in_two_halves(w: LowRank) -> LowRank:
    """The same matrix, (K V^T + U L^T) / 2: one gradient by its factors has those by K and by L."""
    k, l = w.u @ w.s, w.v @ w.s.T
    halves = jnp.eye(2 * len(w.s), dtype=w.s.dtype) / 2
    return LowRank(_beside(k, w.u), halves, _beside(w.v, l))


def _beside(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.concatenate((a, b), axis=1)


def _of_bases(w: LowRank, slope: LowRank) -> LowRank:
    """The gradients by K and by L, of the two halves."""
    columns = len(w.s)
    return LowRank(2 * slope.u[:, :columns], MISSING, 2 * slope.v[:, columns:])


def _of_core(_: LowRank, slope: LowRank) -> LowRank:
    return LowRank(MISSING, slope.s, MISSING)


def _nothing(*_: object) -> Any:
    return MISSING


def _second(_: object, x: Any, *rest: Any) -> Any:
    return x


def _turned(w: LowRank, moved: LowRank, eta: float | jax.Array) -> LowRank:
    """The matrix in the bases of K and L after their step."""
    return _within(w, orthonormal(_k(w, moved, eta)), orthonormal(_l(w, moved, eta)))


def _extended(w: LowRank, moved: LowRank, eta: float | jax.Array) -> LowRank:
    """The matrix in the bases of K and L, before and after their step."""
    is_used = jnp.any(w.u != 0, axis=0)

    def basis(new: jax.Array, old: jax.Array) -> jax.Array:
        used = jnp.concatenate((is_used, is_used))
        q = orthonormal(_beside(new, old)[:, jnp.argsort(~used, stable=True)])
        return jnp.where(jnp.arange(q.shape[1]) < jnp.sum(used), q, 0)

    return _within(w, basis(_k(w, moved, eta), w.u), basis(_l(w, moved, eta), w.v))


def _k(w: LowRank, moved: LowRank, eta: float | jax.Array) -> jax.Array:
    return w.u @ w.s - eta * moved.u


def _l(w: LowRank, moved: LowRank, eta: float | jax.Array) -> jax.Array:
    return w.v @ w.s.T - eta * moved.v


def _within(w: LowRank, u: jax.Array, v: jax.Array) -> LowRank:
    """The matrix between its projections on other bases."""
    return LowRank(u, (u.T @ w.u) @ w.s @ (v.T @ w.v).T, v)


def _stepped(w: LowRank, direction: LowRank, eta: float | jax.Array) -> LowRank:
    return w._replace(s=w.s - eta * direction.s)


def _descended(x: Any, direction: Any, eta: Any) -> Any:
    return x - eta * direction


def _cut(
    held: LowRank, w: LowRank, tolerance: float | jax.Array, *, min_rank: int, max_rank: int | None
) -> LowRank:
    """The matrix without its smallest singular values, in as many columns as it is held in."""
    columns = len(held.s)
    left, sigma, right = linalg.svd(replicated(w.s), full_matrices=False)
    relative = sigma / jnp.where(sigma[0] > 0, sigma[0], 1)
    left_out = jnp.sqrt(jnp.cumsum(jnp.square(relative)[::-1])[::-1])
    rank = jnp.sum(left_out > tolerance * left_out[0])
    rank = jnp.clip(rank, min_rank, columns if max_rank is None else min(max_rank, columns))
    is_kept = jnp.arange(columns) < rank
    return LowRank(
        jnp.where(is_kept, w.u @ left[:, :columns], 0),
        jnp.diag(jnp.where(is_kept, sigma[:columns], 0)),
        jnp.where(is_kept, w.v @ right[:columns].T, 0),
    )


def _like(held: LowRank, w: LowRank) -> LowRank:
    return LowRank(*(resharded(x, like) for x, like in zip(w, held, strict=True)))

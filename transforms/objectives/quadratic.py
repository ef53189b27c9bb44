"""Small quadratic programs over nonnegative vectors, solved exactly under jit."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..notation import linalg
from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.known import repeat_while

Solver = Literal["auto", "enumerate", "projected_newton"]
"""How a program is solved; "auto" enumerates up to six unknowns."""

FEW = 6
MOST_ENUMERATED = 12
HALVINGS = 12
MOST_ITERATIONS = 100


@checked()
def nonnegative_qp(G: jax.Array, c: jax.Array, solver: Solver = "auto") -> jax.Array:
    """argmin of y^T G y / 2 + c^T y over y >= 0.

    A function of arrays.

    Exact up to rounding: the set of entries that are not zero is searched, and on it a linear
    system is solved. G is taken as positive definite; of a singular one the diagonal is raised by
    rounding errors.

    Args:
      G: symmetric, positive semi-definite, of shape (m, m).
      c: of shape (m,).
      solver: "enumerate" tries all 2^m sets; "projected_newton" is Bertsekas' method, whose steps
        find the set after a few linear systems; "auto" takes the first for m <= 6.

    References:
      Bertsekas 1982, Projected Newton Methods for Optimization Problems with Simple Constraints.
    """
    m = G.shape[0]
    if solver == "enumerate" and m > MOST_ENUMERATED:
        raise FlowError(
            f"solver='enumerate' tries 2^m sets of objectives: {m} are too many, at most "
            f"{MOST_ENUMERATED}; use 'projected_newton'"
        )
    # In units of the diagonal's roots all unknowns weigh alike, whatever the lengths of gradients.
    tiny = jnp.finfo(G.dtype).eps * m
    largest = jnp.maximum(jnp.max(jnp.abs(jnp.diagonal(G))), jnp.finfo(G.dtype).tiny / tiny)
    units = jnp.sqrt(jnp.diagonal(G) + tiny * largest)
    C = G / (units[:, None] * units[None, :]) + tiny * jnp.eye(m, dtype=G.dtype)
    enumerates = solver == "enumerate" or (solver == "auto" and m <= FEW)
    solve = _enumerated if enumerates else _projected_newton
    return solve(C, c / units) / units


@checked()
def dual_cone_projection(G: jax.Array, bounds: jax.Array, solver: Solver = "auto") -> jax.Array:
    """argmin of v^T G v over v >= bounds, for one vector of bounds or a stack of them.

    A function of arrays.

    With G = J J^T, J^T v is the projection of J^T bounds onto the cone of directions that no row of
    J opposes.

    Args:
      G: of shape (m, m).
      bounds: of shape (m,) or (count, m).
      solver: see `nonnegative_qp`.
    """
    if bounds.ndim == 2:
        return jax.vmap(lambda b: dual_cone_projection(G, b, solver))(bounds)
    return bounds + nonnegative_qp(G, _dot(G, bounds), solver)


@checked()
def simplex_minimum_norm(G: jax.Array, solver: Solver = "auto") -> jax.Array:
    """argmin of a^T G a over a >= 0 with sum 1: the weights of the shortest convex combination.

    A function of arrays.

    Args:
      G: of shape (m, m).
      solver: see `nonnegative_qp`.
    """
    # The shortest sum is had in the same direction when leaving the simplex costs its distance,
    # and then nothing is unbounded where the gradients are dependent.
    price = jnp.trace(G) / len(G) + (jnp.trace(G) == 0)
    y = nonnegative_qp(G + price, jnp.full(len(G), -price, G.dtype), solver)
    return y / jnp.sum(y)


@checked()
def symmetric_pseudo_inverse(G: jax.Array, cutoff: ArrayLike) -> jax.Array:
    """The pseudo-inverse of a symmetric matrix.

    A function of arrays.

    Args:
      G: of shape (m, m).
      cutoff: eigenvalues that are smaller than this share of the largest count as 0.
    """
    values, vectors = linalg.eigh(G)
    kept = jnp.abs(values) > cutoff * jnp.max(jnp.abs(values))
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    return _dot(vectors * inverse[None, :], vectors.T)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _on(free: jax.Array, C: jax.Array, c: jax.Array) -> jax.Array:
    """The stationary point when only the free entries may differ from zero."""
    m = C.shape[0]
    system = jnp.where(free[:, None] & free[None, :], C, jnp.eye(m, dtype=C.dtype))
    # By LU: of dependent gradients the matrix is only semi-definite, where Cholesky breaks down.
    return linalg.solve(system, jnp.where(free, -c, 0))


def _enumerated(C: jax.Array, c: jax.Array) -> jax.Array:
    m = C.shape[0]
    subsets = jnp.asarray((np.arange(2**m)[:, None] >> np.arange(m)) & 1, bool)

    def candidate(free: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = _on(free, C, c)
        violation = jnp.max(-jnp.minimum(jnp.where(free, y, _dot(C, y) + c), 0))
        return jnp.where(jnp.isfinite(violation), violation, jnp.inf), y

    violations, points = jax.vmap(candidate)(subsets)
    return jnp.maximum(points[jnp.argmin(violations)], 0)


class _Search(NamedTuple):
    y: Any
    value: Any
    iteration: Any
    moving: Any


def _projected_newton(C: jax.Array, c: jax.Array) -> jax.Array:
    rates = 0.5 ** jnp.arange(HALVINGS, dtype=C.dtype)
    tolerance = jnp.finfo(C.dtype).eps

    def value_of(y: jax.Array) -> jax.Array:
        return jnp.sum(y * (0.5 * _dot(C, y) + c))

    def step(search: _Search) -> _Search:
        y = search.y
        slope = _dot(C, y) + c
        # Entries about to hit zero are held there; otherwise steps zigzag between the bounds.
        margin = jnp.minimum(1e-3, jnp.max(jnp.abs(y - jnp.maximum(y - slope, 0))))
        free = ~((y <= margin) & (slope > 0))
        newton = jnp.where(free, _on(free, C, slope), -slope)
        points = jnp.maximum(y[None, :] + rates[:, None] * newton[None, :], 0)
        values = jax.vmap(value_of)(points)
        best = jnp.argmin(values)
        better = values[best] < search.value - tolerance * jnp.abs(search.value)
        y = jnp.where(better, points[best], y)
        value = jnp.where(better, values[best], search.value)
        return _Search(y, value, search.iteration + 1, better)

    start = jnp.zeros_like(c)
    search = _Search(start, jnp.zeros((), C.dtype), 0, jnp.asarray(True))
    found = repeat_while(lambda s: s.moving & (s.iteration < MOST_ITERATIONS), step, search)
    return _polished(C, c, found.y)


def _polished(C: jax.Array, c: jax.Array, y: jax.Array) -> jax.Array:
    """The exact solution on the set that was found, where it is one."""
    exact = _on(y > 0, C, c)
    return jnp.where(jnp.all(exact >= 0), exact, y)

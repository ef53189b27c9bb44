"""The subproblem of cubic-regularised Newton methods."""

import jax
import jax.numpy as jnp

from ....transforms import Hyperparameter, Signal, lift
from ....transforms.curvature import Spectrum
from ....transforms.curvature.dual import matmul
from ....transforms.curvature.safeguards import nonzero
from ....transforms.notation.known import repeat
from ....transforms.notation.roots import norm, root


def cubic_subproblem(of: Signal, m: Hyperparameter, g: Signal, iterations: int = 50) -> Signal:
    """The global minimiser of <g, h> + <H h, h> / 2 + (m / 6) |h|^3.

    With r = |h|: (H + (m r / 2) I) h = -g with a positive semidefinite matrix. In the basis of
    the eigenvectors this is one equation for r, solved by Newton's method on 1/|h| - 1/r inside a
    shrinking bracket. The unknown is the distance of m r / 2 from the lowest value that makes the
    matrix semidefinite, so that the nearly hard case loses no digits. In the hard case (g has no
    part along the lowest, negative eigenvalue, and h falls short of r) the missing length goes
    along that eigenvector, in the direction of its largest entry.

    Args:
      of: the `Spectrum` of H as a leaf.
      m: the cubic constant, positive.
      g: a signal with one leaf.
      iterations: steps of the root search; each at least halves the bracket.

    References:
      Nesterov & Polyak 2006, Cubic regularization of Newton method and its global performance.
    """
    return _minimiser(of, m, g, iterations=iterations)


def _minimised(of: Spectrum, m: float | jax.Array, g: jax.Array, iterations: int) -> jax.Array:
    if not g.size:
        return g
    usable = jnp.isfinite(of.values[0])
    values = jnp.where(usable, of.values, 1)
    c = matmul(of.vectors.T, g)
    base = jnp.minimum(values[0], 0)
    gaps = values - base
    x = _polished(gaps, base, c, m, jax.lax.stop_gradient(_root(gaps, base, c, m, iterations)))
    inner = -_ratio(c, gaps + x)
    missing = (2 * (x - base) / m) ** 2 - jnp.sum(inner**2)
    is_hard = (base < 0) & (x <= 0) & (missing > 0)
    inner = inner.at[0].add(jnp.where(is_hard, root(jnp.where(is_hard, missing, 1)), 0))
    return jnp.where(usable, matmul(of.vectors, inner), 0)


def _root(
    gaps: jax.Array, base: jax.Array, c: jax.Array, m: float | jax.Array, iterations: int
) -> jax.Array:
    """The x >= 0 with |c / (gaps + x)| = 2 (x - base) / m; 0 where there is none."""
    c = jnp.abs(c)
    low = jnp.max(_root_of_one(gaps, base, c, m))
    high = jnp.maximum(_root_of_one(gaps[0], base, norm(c), m), low)
    rounding = 16 * jnp.finfo(c.dtype).eps

    def refine(
        _: int | jax.Array, bracket: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        low, high, x = bracket
        ratio = _ratio(c, gaps + x)
        n, r = norm(ratio), 2 * (x - base) / m
        low, high = jnp.where(n > r, x, low), jnp.where(n > r, high, x)
        slope = (
            jnp.sum(_ratio((ratio / nonzero(n)) ** 2, gaps + x)) / nonzero(n)
            + 2 / m / nonzero(r) ** 2
        )
        newton = x - (1 / nonzero(n) - 1 / nonzero(r)) / slope
        middle = jnp.where(low > 0, root(low) * root(high), high / 2)
        # at the root the bracket begins there, and rounding alone would lead out of it
        is_found = jnp.abs(newton - x) <= rounding * x
        inside = (newton > low) & (newton < high)
        return low, high, jnp.where(is_found, x, jnp.where(inside, newton, middle))

    falls_short = norm(_ratio(c, gaps)) <= -2 * base / m
    x = repeat(iterations, refine, (low, high, high))[2]
    return jnp.where(falls_short & (low <= 0), 0, x)


def _polished(
    gaps: jax.Array, base: jax.Array, c: jax.Array, m: float | jax.Array, found: jax.Array
) -> jax.Array:
    """The root after one more Newton step: derivatives go through this step, not the search."""
    is_inside = found > 0
    raised = gaps + jnp.where(is_inside, found, 1)
    ratio = _ratio(c, raised)
    n = norm(ratio)
    fall = n * jnp.sum(_ratio((ratio / nonzero(n)) ** 2, raised)) + 2 / m
    step = (n - 2 * (found - base) / m) / jax.lax.stop_gradient(fall)
    return jnp.where(is_inside, jnp.maximum(found + step, 0), found)


def _root_of_one(gap: jax.Array, base: jax.Array, c: jax.Array, m: float | jax.Array) -> jax.Array:
    """The x >= 0 with c / (gap + x) = 2 (x - base) / m, without cancellation."""
    excess = m * c / 2 + gap * base
    below = gap - base + root((gap + base) ** 2 + 2 * m * c)
    return jnp.maximum(2 * excess / nonzero(below), 0)


def _ratio(c: jax.Array, denominator: jax.Array) -> jax.Array:
    """c / denominator, and 0 where c is 0."""
    return jnp.where(c == 0, 0, c / nonzero(jnp.where(c == 0, 1, denominator)))


_minimiser = lift(_minimised, "cubic_subproblem")

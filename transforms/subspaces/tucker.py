"""Partial Tucker decompositions: bases along some axes of a tensor."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.checks import checked
from ..notation.known import repeat_while
from ..notation.roots import magnitude, norm, root
from ..notation.sharding import replicated
from .bases import Tucker, along
from .spanned import signed_vectors

SWEEPS = 100
TOLERANCE = 1e-4


@checked()
def partial_tucker(leaf: jax.Array, axes: tuple[int, ...], ranks: tuple[int, ...]) -> Tucker:
    """Bases along some axes that leave out as little as alternating least squares can tell.

    A function of arrays.

    Starts at the leading singular vectors of each unfolding; each sweep improves one basis after
    the other, until the share that is left out changes by less than 1e-4 from one sweep to the
    next, at least three and at most a hundred times.

    Args:
      leaf: an array of any rank; nothing is differentiated through the decomposition.
      axes: along which.
      ranks: how many vectors along each.

    References:
      De Lathauwer, De Moor & Vandewalle 2000, On the Best Rank-1 and Rank-(R1, R2, ..., RN)
      Approximation of Higher-Order Tensors; stopping rule as in TensorLy's `partial_tucker`.
    """
    x = jax.lax.stop_gradient(replicated(leaf))
    x = x / magnitude(x)
    total = norm(x)
    total = jnp.where(total > 0, total, 1)

    def sweep(carry: Any) -> Any:
        count, factors, _, last = carry
        factors = list(factors)
        for i, axis in enumerate(axes):
            rest = x
            for j, other in enumerate(axes):
                if j != i:
                    rest = along(rest, factors[j].conj().T, other)
            factors[i] = _leading(rest, axis, ranks[i])
        core = Tucker(tuple(factors), axes).project(x)
        left_out = root(jnp.abs(1 - (norm(core) / total) ** 2))
        return count + 1, tuple(factors), last, left_out

    def going(carry: Any) -> Any:
        count, _, before, last = carry
        return (count < 3) | ((count < SWEEPS) & (jnp.abs(before - last) >= TOLERANCE))

    start = tuple(_leading(x, axis, rank) for axis, rank in zip(axes, ranks, strict=True))
    nothing = jnp.zeros_like(total)
    factors = repeat_while(going, sweep, (0, start, nothing, nothing))[1]
    return Tucker(factors, axes)


def _leading(x: jax.Array, axis: int, rank: int) -> jax.Array:
    """The leading left singular vectors of an unfolding, as columns."""
    unfolded = jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    short = math.prod(x.shape) // max(x.shape[axis], 1) < rank
    u, _, _ = linalg.svd(unfolded, full_matrices=short, leading=None if short else rank)
    return signed_vectors(u[:, :rank], 0)

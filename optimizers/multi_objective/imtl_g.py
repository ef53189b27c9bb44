"""IMTL-G: the direction that gains equally along every gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, NonNegative, transformation
from ...transforms.notation import linalg
from ...transforms.notation.roots import root
from ...transforms.objectives import aggregate_by_gramian, symmetric_pseudo_inverse
from .gram_matrix import cosines

LEAST_SUM = 1e-12


@method(
    "Liu et al. 2021, Towards Impartial Multi-task Learning",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def imtl_g(rcond: NonNegative | None = None) -> Flow:
    r"""The combination of stacked gradients whose components along all of them are equally long.

    .. math::
        v = G^+ d, \quad d_i = \|g_i\|, \qquad g = \sum_i \frac{v_i}{\sum_j v_j} g_i

    with the Gramian :math:`G_{ij} = \langle g_i, g_j \rangle` over the whole tree and its
    pseudo-inverse. Weights sum to 1; they may be negative, and are unbounded where gradients are
    nearly dependent. It stands in front of any optimizer.

    One objective: its gradient. A row of zeros has weight 0. Gradients of one length in opposite
    directions: zero.

    Args:
      rcond: eigenvalues of G below this share of the largest count as 0; default m times the
        machine epsilon, and none where the cosines between the gradients say that they are
        independent, whatever their lengths.

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import imtl_g
      >>> aggregate = imtl_g()
      >>> stacked = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> one, _ = aggregate.update(stacked, aggregate.init(jnp.zeros(2)))
      >>> [round(float(x), 3) for x in one]
      [0.75, 0.75]

    References:
      Liu et al. 2021, Towards Impartial Multi-task Learning (ICLR), in the form for dependent
      gradients that Quinton & Rey 2024 (arXiv 2406.16232) give and torchjd has.
    """
    given: dict[str, Any] = {} if rcond is None else {"rcond": rcond}

    def weights(G: jax.Array, _: jax.Array, rcond: Any = None) -> jax.Array:
        cutoff = len(G) * float(jnp.finfo(G.dtype).eps) if rcond is None else rcond
        lengths = root(jnp.diagonal(G))
        v = _dot(symmetric_pseudo_inverse(G, cutoff), lengths)
        if rcond is None:
            are_independent, of_cosines = _by_cosines(G, cutoff)
            v = jnp.where(are_independent, of_cosines, v)
        total = jnp.sum(v)
        # In units in which the longest gradient has length 1, where rounding is what is below it.
        rounding = max(LEAST_SUM, 64 * len(G) * float(jnp.finfo(G.dtype).eps))
        is_sum = jnp.abs(total) * jnp.max(lengths) >= rounding
        return jnp.where(is_sum, v / jnp.where(is_sum, total, 1), 0)

    return aggregate_by_gramian(weights, scaled=True, **given)


_dot = functools.partial(jnp.matmul, precision="highest")


def _by_cosines(G: jax.Array, cutoff: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether the gradients that are not 0 are independent, and G^{-1} d if so.

    Of the cosines between them, since G has the squares of their lengths in its condition number:
    in float32, a gradient of a thousandth of another's length is all rounding there.
    """
    C, inverse_lengths = cosines(G)
    present = inverse_lengths > 0
    values, vectors = linalg.eigh(C + jnp.diag(jnp.where(present, 0, 1).astype(G.dtype)))
    are_independent = values[0] > cutoff * values[-1]
    divisor = jnp.where(are_independent, values, 1)
    solved = _dot(vectors, _dot(vectors.T, present.astype(G.dtype)) / divisor)
    return are_independent, solved * inverse_lengths

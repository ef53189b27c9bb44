"""Aligned-MTL: gradients are turned until none of them conflicts, and weighed alike."""

from typing import Literal

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, transformation
from ...transforms.notation import linalg
from ...transforms.objectives import aggregate_by_gramian, check_vector, vector_for
from ...transforms.objectives.preferences import Vector


@method(
    "Senushkin et al. 2023, Independent Component Alignment for Multi-Task Learning",
    arxiv="2305.19000",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def aligned_mtl(
    pref_vector: Vector | None = None, scale_mode: Literal["min", "median", "rmse"] = "min"
) -> Flow:
    r"""Makes stacked gradients orthogonal and equally long, and takes their weighted mean.

    With :math:`G = V \operatorname{diag}(\lambda) V^\top` the Gramian over the whole tree, of which
    the eigenvalues above rounding are kept,

    .. math::
        B = \sqrt{s}\, V \operatorname{diag}(\lambda^{-1/2}) V^\top, \qquad
        g = \sum_i (B u)_i g_i

    It stands in front of any optimizer.

    One objective: u_1 times its gradient. A row of zeros has weight 0. Gradients in opposite
    directions are one direction with a sign: equal weights cancel, and the result is zero.

    Args:
      pref_vector: u, one weight for each objective; default 1/m.
      scale_mode: s, of the kept eigenvalues: "min", the "median" (of an even number the lower of
        the middle two), or their mean ("rmse").

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: as `upgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import aligned_mtl
      >>> aggregate = aligned_mtl()
      >>> stacked = jnp.array([[1.0, 0.0], [0.0, 4.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [0.5 0.5]

    References:
      Senushkin et al. 2023, Independent Component Alignment for Multi-Task Learning (arXiv
      2305.19000). Default scale and cut-off are those of torchjd; one release of the authors' code
      scales by "rmse".
    """
    check_vector("aligned_mtl", "pref_vector", pref_vector)

    def weights(G: jax.Array, _: jax.Array) -> jax.Array:
        u = vector_for("aligned_mtl", "pref_vector", pref_vector, G, 1 / len(G))
        values, vectors = linalg.eigh(G)
        kept = values > jnp.max(values) * len(G) * jnp.finfo(G.dtype).eps
        lengths = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        root = jnp.sqrt(_scale(values, kept, scale_mode))
        aligned = root * jnp.matmul(vectors * lengths[None, :], vectors.T, precision="highest")
        balance = jnp.where(jnp.any(kept), aligned, jnp.eye(len(G), dtype=G.dtype))
        return jnp.matmul(balance, u, precision="highest")

    return aggregate_by_gramian(weights, scaled=True)


def _scale(values: jax.Array, kept: jax.Array, mode: str) -> jax.Array:
    """Of the eigenvalues in ascending order, of which the last are kept."""
    rank = jnp.maximum(jnp.sum(kept), 1)
    first = len(values) - rank
    if mode == "rmse":
        return jnp.sum(jnp.where(kept, values, 0)) / rank
    return jnp.maximum(values[first if mode == "min" else first + (rank - 1) // 2], 0)

"""DualProj: the mean gradient freed of its conflicts."""

import jax

from ...registry import method
from ...transforms import Flow, NonNegative, transformation
from ...transforms.objectives import (
    Solver,
    aggregate_by_gramian,
    check_vector,
    dual_cone_projection,
    vector_for,
)
from ...transforms.objectives.preferences import Vector
from .gram_matrix import regularised


@method(
    "Lopez-Paz & Ranzato 2017, Gradient Episodic Memory for Continual Learning",
    arxiv="1706.08840",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def dualproj(
    pref_vector: Vector | None = None,
    norm_eps: NonNegative = 1e-4,
    reg_eps: NonNegative = 1e-4,
    solver: Solver = "auto",
) -> Flow:
    r"""Projects the mean of stacked gradients onto the directions that harm no objective.

    .. math::
        w = \operatorname*{argmin}_{v \ge u} v^\top (G / \operatorname{tr} G + \epsilon I) v,
        \qquad g = \sum_i w_i g_i

    with the Gramian :math:`G_{ij} = \langle g_i, g_j \rangle` over the whole tree. It stands in
    front of any optimizer. Unlike `upgrad`, which projects every gradient by itself, it lets a long
    gradient decide alone what becomes of the mean.

    One objective: u_1 times its gradient. A row of zeros takes no part. Gradients in opposite
    directions: nearly zero along them.

    Args:
      pref_vector: u, one weight for each objective; default 1/m.
      norm_eps: where tr G is below it, G counts as zero, and the result is the weighted mean.
      reg_eps: epsilon, relative to the trace.
      solver: of the quadratic program; see `nonnegative_qp`.

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: as `upgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import dualproj
      >>> aggregate = dualproj(reg_eps=0.0)
      >>> stacked = jnp.array([[1.0, 0.0], [-3.0, 4.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [0. 2.]

    References:
      Lopez-Paz & Ranzato 2017, Gradient Episodic Memory for Continual Learning (arXiv 1706.08840):
      its projection is this one with both eps at 0, which torchjd's DualProj, that we follow, adds.
      Compared in Quinton & Rey 2024 (arXiv 2406.16232).
    """
    check_vector("dualproj", "pref_vector", pref_vector)

    def weights(
        G: jax.Array, scale: jax.Array, norm_eps: float | jax.Array, reg_eps: float | jax.Array
    ) -> jax.Array:
        u = vector_for("dualproj", "pref_vector", pref_vector, G, 1 / len(G))
        return dual_cone_projection(regularised(G, scale, norm_eps, reg_eps), u, solver)

    return aggregate_by_gramian(weights, scaled=True, norm_eps=norm_eps, reg_eps=reg_eps)

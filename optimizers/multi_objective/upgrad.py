"""UPGrad: the mean of the gradients after each has been freed of its conflicts."""

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Flow, NonNegative, chain, scale_by_learning_rate, transformation
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
    "Quinton & Rey 2024, Jacobian Descent For Multi-Objective Optimization",
    arxiv="2406.16232",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def upgrad(
    pref_vector: Vector | None = None,
    norm_eps: NonNegative = 1e-4,
    reg_eps: NonNegative = 1e-4,
    solver: Solver = "auto",
    axis_name: str | None = None,
) -> Flow:
    r"""Projects each gradient onto the directions that harm no objective, and adds them up.

    Of stacked gradients :math:`g_1, \ldots, g_m` (a leading axis of objectives on every leaf):

    .. math::
        v_i = \operatorname*{argmin}_{v \ge u_i e_i}
            v^\top \Bigl(\frac{G}{\operatorname{tr} G} + \epsilon I\Bigr) v, \qquad
        g = \sum_j w_j g_j, \quad w = \sum_i v_i

    with the Gramian :math:`G_{ij} = \langle g_i, g_j \rangle` over the whole tree. It stands in
    front of any optimizer. Where nothing conflicts it is the weighted mean; no objective rises to
    first order, but for a share that epsilon allows.

    One objective: u_1 times its gradient. A row of zeros takes no part. Gradients in opposite
    directions: their average without the component along them, all but epsilon.

    Args:
      pref_vector: u, one weight for each objective; default 1/m.
      norm_eps: where tr G is below it, G counts as zero, and the result is the weighted mean.
      reg_eps: epsilon, relative to the trace.
      solver: of the quadratic programs; see `nonnegative_qp`.
      axis_name: see `transforms.objectives.aggregate_by_gramian`.

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked
        or whose objectives are not as many as `pref_vector` has entries.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import upgrad
      >>> aggregate = upgrad(reg_eps=0.0)
      >>> stacked = jnp.array([[1.0, 0.0], [-2.0, 2.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [0.25 1.25]

    References:
      Quinton & Rey 2024, Jacobian Descent for Multi-Objective Optimization (arXiv 2406.16232). The
      paper has neither norm_eps nor reg_eps; the authors' library torchjd needs both, and we
      follow it. With both at 0 it is the paper's, where the gradients are independent.
    """
    check_vector("upgrad", "pref_vector", pref_vector)

    def weights(
        G: jax.Array, scale: jax.Array, norm_eps: float | jax.Array, reg_eps: float | jax.Array
    ) -> jax.Array:
        u = vector_for("upgrad", "pref_vector", pref_vector, G, 1 / len(G))
        G = regularised(G, scale, norm_eps, reg_eps)
        return jnp.sum(dual_cone_projection(G, jnp.diag(u), solver), axis=0)

    return aggregate_by_gramian(
        weights, scaled=True, axis_name=axis_name, norm_eps=norm_eps, reg_eps=reg_eps
    )


@transformation()
def jacobian_descent(
    learning_rate: optax.ScalarOrSchedule,
    aggregator: optax.GradientTransformation | None = None,
) -> Flow:
    """Gradient descent along what an aggregator makes of stacked gradients.

    Args:
      learning_rate: number or schedule.
      aggregator: from stacked gradients to ordinary ones; default `upgrad()`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import jacobian_descent
      >>> opt = jacobian_descent(0.5)
      >>> stacked = jnp.array([[2.0, 0.0], [0.0, 4.0]])
      >>> opt.update(stacked, opt.init(jnp.zeros(2)))[0].tolist()
      [-0.5, -1.0]

    References:
      Quinton & Rey 2024, Jacobian Descent for Multi-Objective Optimization (arXiv 2406.16232).
    """
    return chain(
        upgrad() if aggregator is None else aggregator, scale_by_learning_rate(learning_rate)
    )

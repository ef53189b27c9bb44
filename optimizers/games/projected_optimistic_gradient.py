"""The optimistic gradient method with a projection."""

import optax

from ...registry import method
from ...transforms import Flow, Signal, delay, flow, scheduled, transformation
from ...transforms.projections import check_projection, onto
from ...transforms.projections.applied import Projection
from .past_extragradient import SINGLE_CALL, SINGLE_CALL_ARXIV


@method(
    SINGLE_CALL,
    arxiv=SINGLE_CALL_ARXIV,
    tags=("evaluation-weights", "games"),
    learning_rate=0.1,
)
@transformation()
def projected_optimistic_gradient(
    learning_rate: optax.ScalarOrSchedule, projection: Projection | None = None
) -> Flow:
    r"""Extragradient along the last field, with the base point rebuilt from the half point.

    .. math::
        X_{t+1/2} = \Pi(X_t - \gamma_t V_{t-1/2}), \qquad
        X_{t+1} = X_{t+1/2} + \gamma_t V_{t-1/2} - \gamma_t V_{t+1/2}, \qquad V_{1/2} = 0

    The params of the training loop are the half points, where gradients are taken; they alone are
    projected. The state keeps :math:`\gamma_{t+1} V_{t+1/2}`, and `eval_params(state, params)`
    gives the params plus that, which is X wherever the projection is inactive. Without projection
    this is `past_extragradient`; with an active one the two differ.

    Args:
      learning_rate: gamma; number or schedule.
      projection: Pi; see `extragradient`.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them and a count.

    Raises:
      ValueError: for a hyper-parameter out of range, or what is no projection.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import projected_optimistic_gradient
      >>> opt, params = projected_optimistic_gradient(0.25), jnp.array([1.0])
      >>> updates, state = opt.update(jnp.array([1.0]), opt.init(params), params)
      >>> updates.tolist(), state.hint.weights.tolist()
      ([-0.5], [0.25])

    References:
      Hsieh, Iutzeler, Malick & Mertikopoulos 2019 (arXiv 1908.08465). There is no official code.
    """
    check_projection("projected_optimistic_gradient", projection)

    def step(g: Signal, params: Signal) -> Signal:
        past = delay(g, name="hint", evaluation=(1.0, 1.0))
        X = params + past - scheduled(learning_rate) * g
        hint = past << scheduled(learning_rate, ahead=1) * g
        return onto(projection, X - hint) - params

    return flow(step)

"""The projected reflected gradient method."""

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
def reflected_gradient(
    learning_rate: optax.ScalarOrSchedule, projection: Projection | None = None
) -> Flow:
    r"""Takes the field where the last step, made once more, would lead.

    .. math::
        X_{t+1/2} = 2 X_t - X_{t-1}, \qquad X_{t+1} = \Pi(X_t - \gamma_t V_{t+1/2}), \qquad
        X_0 = X_1

    The params of the training loop are the half points, where gradients are taken. They are not
    projected and may leave the set: the field must be defined there. The base point X is in the
    state, and `eval_params(state, params)` gives it. Without projection and at a constant rate this
    is `past_extragradient`.

    Args:
      learning_rate: gamma; number or schedule.
      projection: Pi; see `extragradient`.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them and a count.

    Raises:
      ValueError: for a hyper-parameter out of range, or what is no projection.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import reflected_gradient
      >>> from gradchain.transforms.projections import box
      >>> opt, params = reflected_gradient(0.5, box(0.0, 1.0)), jnp.array([0.25])
      >>> updates, _ = opt.update(jnp.array([1.0]), opt.init(params), params)
      >>> (params + updates).tolist()                          # X is 0 now
      [-0.25]

    References:
      Malitsky 2015, Projected Reflected Gradient Methods for Monotone Variational Inequalities
      (arXiv 1502.04968); Hsieh, Iutzeler, Malick & Mertikopoulos 2019 (arXiv 1908.08465). There is
      no official code.
    """
    check_projection("reflected_gradient", projection)

    def step(g: Signal, params: Signal) -> Signal:
        base = delay(params, name="base", evaluation=(1.0, 0.0))
        X = onto(projection, base - scheduled(learning_rate) * g)
        reflected = 2 * X - base
        base << X
        return reflected - params

    return flow(step)

"""Popov's method: extragradient with one evaluation."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import Flow, Signal, delay, flow, scheduled, step_count, transformation, where
from ...transforms.projections import check_projection, onto
from ...transforms.projections.applied import Projection

SINGLE_CALL = (
    "Hsieh, Iutzeler, Malick & Mertikopoulos 2019, On the convergence of single-call stochastic "
    "extra-gradient methods"
)
SINGLE_CALL_ARXIV = "1908.08465"


@method(
    SINGLE_CALL,
    arxiv=SINGLE_CALL_ARXIV,
    tags=("evaluation-weights", "games"),
    learning_rate=0.1,
)
@transformation()
def past_extragradient(
    learning_rate: optax.ScalarOrSchedule,
    projection: Projection | None = None,
    initial_hint: Literal["zero", "current"] = "zero",
) -> Flow:
    r"""Extragradient that extrapolates along the last field instead of asking for another.

    .. math::
        X_{t+1/2} = \Pi(X_t - \gamma_t V_{t-1/2}), \qquad
        X_{t+1} = \Pi(X_t - \gamma_t V_{t+1/2}), \qquad V_{1/2} = 0

    The params of the training loop are the half points, where gradients are taken. The base point X
    is in the state, and `eval_params(state, params)` gives it: evaluate there, or at its average.
    Without projection and at a constant rate the params move by
    :math:`-2 \gamma g_t + \gamma g_{t-1}`, as in `optimistic_gradient`.

    Args:
      learning_rate: gamma; number or schedule.
      projection: Pi; see `extragradient`.
      initial_hint: the field before the first: "zero", so that the first move is 2 gamma g_1, or
        the "current" one, with which it is gamma g_1.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them and a count.

    Raises:
      ValueError: for a hyper-parameter out of range, or what is no projection.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import past_extragradient
      >>> opt, params = past_extragradient(0.25), jnp.array([1.0])
      >>> updates, state = opt.update(jnp.array([1.0]), opt.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> params.tolist(), eval_params(state, params).tolist()
      ([0.5], [0.75])

    References:
      Popov 1980, A modification of the Arrow-Hurwicz method for search of saddle points; Hsieh,
      Iutzeler, Malick & Mertikopoulos 2019 (arXiv 1908.08465). There is no official code.
    """
    check_projection("past_extragradient", projection)

    def step(g: Signal, params: Signal) -> Signal:
        base = delay(params, name="base", evaluation=(1.0, 0.0))
        X = onto(projection, base - scheduled(learning_rate) * g)
        if initial_hint == "current":  # the start is then a half point, one step from its base
            X = where(step_count() == 1, base, X)
        base << X
        return onto(projection, X - scheduled(learning_rate, ahead=1) * g) - params

    return flow(step)

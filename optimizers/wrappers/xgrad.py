"""Weight prediction."""

from collections.abc import Callable
from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Fraction,
    NonNegative,
    Signal,
    chain,
    decay_weights,
    delay,
    flow,
    handed_on,
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    trace,
    transformation,
)
from ...transforms.control import at_params

Base = Literal["sgd", "adam", "adamw"]

PAPER = "Guan et al. 2023, XGrad: Boosting Gradient-Based Optimizers With Weight Prediction"


@method(
    PAPER,
    arxiv="2305.18240",
    tags=("evaluation-weights", "nesterov"),
)
@transformation()
def weight_prediction(
    inner: optax.GradientTransformation,
    direction_fn: Callable[[Signal], Signal] | None = None,
    prediction_steps: NonNegative = 1,
) -> Flow:
    r"""Takes gradients where an optimizer's weights are predicted to be some steps later.

    With x the true weights, which the state keeps, and :math:`\hat x` the params of the training
    loop,

    .. math::
        x_t = x_{t-1} + \Delta_t, \qquad \hat x_t = x_t + s p_t

    where the inner transformation gives :math:`\Delta_t` from the gradient at :math:`\hat x_{t-1}`
    and sees the true weights as params. The predicted step p is :math:`\Delta_t` itself, or what
    `direction_fn` makes of it. `eval_params(state, params)` gives x, at which to
    evaluate.

    Args:
      inner: any transformation whose output is the additive update.
      direction_fn: function of signals that gives the predicted step from the inner update, such
        as `lambda update: update >> ema(0.9)`; default the update itself.
      prediction_steps: s, how many steps ahead.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import weight_prediction
      >>> opt = weight_prediction(optax.sgd(0.5))
      >>> params = jnp.array([1.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> float(params[0]), float(eval_params(state, params)[0])
      (0.0, 0.5)

    References:
      Guan et al. 2023, XGrad (arXiv 2305.18240).
    """

    def ahead(update: Signal) -> Signal:
        return prediction_steps * (update if direction_fn is None else direction_fn(update))

    return _predicting(inner, optax.identity(), ahead)


def _predicting(
    direction: optax.GradientTransformation,
    finish: optax.GradientTransformation,
    ahead: Callable[[Signal], Signal],
) -> Flow:
    """Moves the true weights by direction and finish, and the params to where `ahead` leads."""

    def step(g: Signal, params: Signal) -> Signal:
        x = delay(params, name="weights", evaluation=(1.0, 0.0))
        d = g >> at_params(x, direction)
        x << x + (d >> at_params(x, finish))
        return x.written + ahead(d) - params

    return flow(step)


@method(
    PAPER,
    arxiv="2305.18240",
    tags=("evaluation-weights", "nesterov"),
    learning_rate=1e-2,
)
@transformation()
def xgrad(
    learning_rate: optax.ScalarOrSchedule,
    base: Base = "adamw",
    prediction_steps: NonNegative = 1,
    momentum: Decay = 0.9,
    dampening: Fraction = 0.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative | None = None,
) -> Flow:
    r"""SGD, Adam or AdamW with gradients taken at predicted weights.

    With x the true weights, which the state keeps, and :math:`\hat x` the params of the training
    loop,

    .. math::
        x_t = x_{t-1} - \eta_t (d_t + \lambda x_{t-1}), \qquad
        \hat x_t = x_t - s \eta_{t+1} d_t

    where d is the direction of the base: the momentum buffer (of the gradient plus
    :math:`\lambda x`, instead of decoupled decay) for "sgd", Adam's for the others. No decoupled
    decay takes part in the prediction. `eval_params(state, params)` gives x, at which to evaluate.

    Args:
      learning_rate: eta; number or schedule.
      base: "sgd", "adam" or "adamw".
      prediction_steps: s, how many steps ahead; about 1 to 3.
      momentum: decay of the buffer of "sgd".
      dampening: share of every gradient, the first too, that is left out of that buffer.
      b1, b2, eps: of Adam's direction.
      weight_decay: lambda; default 0 for "sgd" and 0.01 for "adamw". "adam" ignores it, as the
        official code does.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import xgrad
      >>> opt = xgrad(0.5, base="sgd", prediction_steps=2)
      >>> params = jnp.array([1.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> float(params[0]), float(eval_params(state, params)[0])
      (-0.5, 0.5)

    References:
      Guan et al. 2023, XGrad: Boosting Gradient-Based Optimizers With Weight Prediction (arXiv
      2305.18240), and guanleics/XGrad.
    """
    decay = {"sgd": 0.0, "adam": 0.0, "adamw": 1e-2}[base] if weight_decay is None else weight_decay
    if base == "sgd":
        damped = flow(lambda g: (1 - scheduled(dampening)) * g >> trace(momentum))
        direction, decoupled = chain(decay_weights(decay), damped), optax.identity()
    else:
        direction = handed_on(scale_by_adam)
        decoupled = decay_weights(decay if base == "adamw" else 0.0)

    def ahead(d: Signal) -> Signal:
        return -scheduled(prediction_steps) * scheduled(learning_rate, ahead=1) * d

    return _predicting(direction, chain(decoupled, scale_by_learning_rate(learning_rate)), ahead)

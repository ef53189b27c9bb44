"""Optimistic AMSGrad."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Signal,
    Size,
    chain,
    decay_weights,
    delay,
    divide,
    ema,
    flow,
    handed_on,
    named,
    running_max,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
)
from ...transforms.accumulate import extrapolate, one_minus_power

Predictor = Literal["extrapolation", "last", "given"]


@transformation()
def scale_by_optimistic_amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    predictor: Predictor = "extrapolation",
    history: Size = 5,
    reg: NonNegative = 1e-3,
    bias_correction: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AMSGrad that plays a step ahead, along its guess of the next gradient.

    With p_t the guess that was made of g_t (p_1 = 0), p_{t+1} that of the next:

        v_t = b2 v_{t-1} + (1 - b2) (g_t - p_t)^2
        D_t = sqrt(max of v so far) + eps
        m_t = b1 m_{t-1} + (1 - b1) g_t
        h_t = b1 m_{t-1} + (1 - b1) p_{t+1}
        a_t = eta_t sqrt(1 - b2^t) / (1 - b1^t)
        y_t = y_{t-1} - a_t m_t / D_t,    x_t = y_t - a_t h_t / D_t

    x is where gradients are taken; y is where AMSGrad would be. The rate and its sign are part of
    the rule: nothing may change the update afterwards.

    Args:
      learning_rate: eta, number or schedule.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment of prediction errors, in [0, 1).
      eps: added to the root.
      predictor: p_{t+1} is extrapolated from the last gradients ("extrapolation"), is the last one
        ("last"), or is the extra argument `predicted_grads` ("given"), which then is p_t as well.
      history: differences used in the extrapolation; see `extrapolate`.
      reg: its regularisation.
      bias_correction: False has a_t = eta_t, as in the paper.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Wang, Li, Karimi & Li 2019, An Optimistic Acceleration of AMSGrad for Nonconvex Optimization
      (arXiv 1903.01435), and the authors' code, whose zero start, eps and bias correction we
      follow. The predictor is the paper's, of gradients, with the weights of the code (at the newer
      end of a difference); the code itself extrapolates weights and takes a second gradient there:
      "given".
    """

    def step(g: Signal, predicted_grads: Signal) -> Signal:
        return played(g, predicted_grads, predicted_grads)

    def guessing(g: Signal) -> Signal:
        ahead = g if predictor == "last" else g >> named("history", extrapolate(history, reg))
        guess = delay(g, name="guess")
        return played(g, guess, guess << ahead)

    def played(g: Signal, guess: Signal, ahead: Signal) -> Signal:
        rate, t = scheduled(learning_rate), step_count()
        if bias_correction:
            rate = rate * sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
        v = square(g - guess) >> named("nu", ema(b2)) >> named("nu_max", running_max())
        scale = divide(rate, sqrt(v) + eps, eps)
        m, offset = delay(g, name="mu"), delay(g, name="offset")
        look_ahead = offset << -scale * (b1 * m + (1 - scheduled(b1)) * ahead)
        momentum = m << b1 * m + (1 - scheduled(b1)) * g
        return -scale * momentum - offset + look_ahead

    return flow(step if predictor == "given" else guessing)


@method(
    "Wang, Li, Karimi & Li 2019, An Optimistic Acceleration of AMSGrad for Nonconvex Optimization",
    arxiv="1903.01435",
    tags=("adam", "games"),
)
@transformation()
def optimistic_amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    predictor: Predictor = "extrapolation",
    history: Size = 5,
    reg: NonNegative = 1e-3,
    bias_correction: bool = True,
    weight_decay: NonNegative = 0.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Optimistic AMSGrad (OPT-AMSGrad); the rule is that of `scale_by_optimistic_amsgrad`.

    Args:
      learning_rate, b1, b2, eps, predictor, history, reg, bias_correction: see
        `scale_by_optimistic_amsgrad`; the authors use 1e-3, 0.9, 0.99 and a history of 5.
      weight_decay: L2, added to the gradient.
      mu_dtype, nu_dtype: see `scale_by_optimistic_amsgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import optimistic_amsgrad
      >>> opt = optimistic_amsgrad(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params))
      >>> [round(float(u), 3) for u in updates]
      [-1.0, 1.0]
    """
    return chain(
        decay_weights(weight_decay),
        handed_on(scale_by_optimistic_amsgrad),
    )

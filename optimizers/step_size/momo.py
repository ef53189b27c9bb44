"""MoMo."""

from typing import Any

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Signal,
    ema,
    flow,
    global_norm,
    named,
    scheduled,
    step_count,
    transformation,
    where,
)
from ...transforms.accumulate import one_minus_power
from ...transforms.control import at_finite_losses
from .model_step import model_step_size


@method(
    "Schaipp et al. 2023, MoMo: Momentum Models for Adaptive Learning Rates",
    arxiv="2305.07583",
    tags=("own-rate", "momentum"),
    learning_rate=0.1,
)
@transformation()
def momo(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    beta: Decay = 0.9,
    lower_bound: float = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    bias_correction: bool = False,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Momentum whose step is as long as a model of the loss allows.

        m_t = beta m_{t-1} + (1 - beta) g_t
        f_t = beta f_{t-1} + (1 - beta) loss_t
        c_t = beta c_{t-1} + (1 - beta) <g_t, x_t>
        tau = min(r / rho, max(A (f_t - rho lb) + <m_t, x_t> - A c_t, 0) / |m_t|^2)
        x_{t+1} = (x_t - tau m_t) / A,      A = 1 + r weight_decay

    Inner products run over all leaves. The averages start with the first batch, and rho = 1; with
    `bias_correction` they start at zero, and rho = 1 - beta^t.

    Args:
      learning_rate: r, the largest step; number or schedule.
      beta: decay of the averages, in [0, 1).
      lower_bound: lb, a lower bound of the loss.
      weight_decay: proximal decay.
      adapt_lower_bound: estimate lb along the way; `lower_bound` is then its floor.
      bias_correction: see above.
      mu_dtype: storage of the first moments; default at least float32.

    Returns:
      The optimizer; `update` needs `params` and `value`, the loss at the params without the decay
      term, of the function whose gradient comes in. Its state is the size of the params. Loss
      scaling or clipped gradients break the model.

    Raises:
      ValueError: for a hyper-parameter out of range, or without `value`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import momo
      >>> opt = momo(learning_rate=10.0)
      >>> x = jnp.array([3.0, -4.0])                     # loss |x|^2 / 2
      >>> opt.update(x, opt.init(x), x, value=12.5)[0].tolist()
      [-1.5, 2.0]

    References:
      Schaipp et al. 2023, MoMo: Momentum Models for Adaptive Learning Rates (arXiv 2305.07583); the
      authors' package agrees. `optax.contrib.momo` does not divide the step by A.
    """

    def step(g: Signal, params: Signal, value: Signal) -> Signal:
        rate = scheduled(learning_rate)
        decay: Any = where(step_count() == 1, 0.0, beta)
        rho: Any = 1.0
        if bias_correction:
            decay, rho = beta, one_minus_power(beta, step_count())
        shrink = 1 + rate * scheduled(weight_decay)
        m = g >> named("mu", ema(decay))
        length = global_norm(m)
        tau = model_step_size(
            g,
            params,
            value,
            m,
            (length, length),
            decay=decay,
            rho=rho,
            rate=rate,
            shrink=shrink,
            lower_bound=lower_bound,
            adapt_lower_bound=adapt_lower_bound,
        )
        return -(tau * m + (shrink - 1) * params) / shrink

    return at_finite_losses(flow(step))

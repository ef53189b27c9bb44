"""MoMo-Adam."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    debiased_root,
    decay_weights,
    divide,
    ema,
    flow,
    global_dot,
    scheduled,
    square,
    step_count,
    transformation,
)
from ...transforms.accumulate import one_minus_power
from ...transforms.control import at_finite_losses
from ...transforms.step_size import DecayForm
from .model_step import model_step_size


@method(
    "Schaipp et al. 2023, MoMo: Momentum Models for Adaptive Learning Rates",
    arxiv="2305.07583",
    tags=("own-rate", "adam"),
    learning_rate=0.01,
)
@transformation()
def momo_adam(
    learning_rate: optax.ScalarOrSchedule = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    decoupled: bool = False,
    mask: Mask | None = None,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose step is as long as a model of the loss allows.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        D_t = sqrt(v_t / (1 - b2^t)) + eps,   v_t = b2 v_{t-1} + (1 - b2) g_t^2
        f_t = b1 f_{t-1} + (1 - b1) loss_t
        c_t = b1 c_{t-1} + (1 - b1) <g_t, x_t>
        tau = min(r / rho, max(A (f_t - rho lb) + <m_t, x_t> - A c_t, 0) / <m_t, m_t / D_t>)
        x_{t+1} = (x_t - tau m_t / D_t) / A                     A = 1 + r weight_decay
        x_{t+1} = (1 - r weight_decay) x_t - tau m_t / D_t      if decoupled

    with rho = 1 - b1^t, and inner products over all leaves. Where the cap r / rho holds, this is
    Adam.

    Args:
      learning_rate: r, the largest step; number or schedule.
      b1: decay of the momentum and of the averages of loss and products, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      lower_bound: lb, a lower bound of the loss.
      weight_decay: proximal decay, or decoupled.
      adapt_lower_bound: estimate lb along the way; `lower_bound` is then its floor.
      decoupled: see above.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype: storage dtype of m; default at least float32.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; `update` needs `params` and `value`, the loss at the params without the decay
      term, of the function whose gradient comes in. Its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range, or without `value`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import momo_adam
      >>> opt = momo_adam(learning_rate=10.0)
      >>> x = jnp.array([3.0, -4.0])                     # loss |x|^2 / 2
      >>> [f"{u:.3f}" for u in opt.update(x, opt.init(x), x, value=12.5)[0]]
      ['-1.786', '1.786']

    References:
      Schaipp et al. 2023, MoMo: Momentum Models for Adaptive Learning Rates (arXiv 2305.07583); the
      authors' package momo-opt, in which A multiplies the model with `decoupled`, too.
      `optax.contrib.momo_adam` does not divide the step by A.
    """

    def step(g: Signal, params: Signal, value: Signal) -> Signal:
        rate = scheduled(learning_rate)
        m = g >> ema(b1, dtype=mu_dtype, name="mu")
        v = square(g) >> ema(b2, name="nu")
        direction = divide(m, debiased_root(v, b2, eps), eps)
        tau = model_step_size(
            g,
            params,
            value,
            m,
            (global_dot(m, direction), 1.0),
            decay=b1,
            rho=one_minus_power(b1, step_count()),
            rate=rate,
            shrink=1 + rate * scheduled(weight_decay),
            lower_bound=lower_bound,
            adapt_lower_bound=adapt_lower_bound,
        )
        form: DecayForm = "decoupled" if decoupled else "proximal"
        return -tau * direction >> decay_weights(weight_decay, form, learning_rate=rate, mask=mask)

    return at_finite_losses(flow(step))

"""Prodigy."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    PositiveConstant,
    Signal,
    decay_weights,
    delay,
    divide,
    divide_or_zero,
    ema,
    flow,
    global_dot,
    global_sum,
    initial_params,
    maximum,
    scheduled,
    sqrt,
    square,
    step_count,
    tap,
    trace,
    transformation,
)
from ...transforms.accumulate import one_minus_power


@method(
    "Mishchenko & Defazio 2023, Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
    arxiv="2306.06101",
    learning_rate=1.0,
    tags=("own-rate", "adam", "decoupled-decay"),
    small_model={"estim_lr0": 1e-3},
)
@transformation()
def prodigy(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: PositiveConstant = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    *,
    mask: Mask | None = None,
    bias_correction: bool = True,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdamW that estimates its learning rate from how far gradients have pulled it.

        r_t = d_t learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        m_t = b1 m_{t-1} + (1 - b1) d_t g_t
        v_t = b2 v_{t-1} + (1 - b2) d_t^2 g_t^2
        n_t = b3 n_{t-1} + (d_t / d_0) r_t <g_t, x_0 - x_t>
        s_t = b3 s_{t-1} + (d_t / d_0) r_t g_t
        d_{t+1} = max(d_t, coef n_t / |s_t|_1)
        x_{t+1} = x_t - r_t (m_t / (sqrt(v_t) + d_{t+1} eps) + weight_decay x_t)

    with products and norms over all leaves, and x_0 the params that `init` was given. The tap
    "estim_lr" is d_{t+1}. Where there has been no gradient at all, d stays as it is.

    Args:
      learning_rate: a multiple of the estimate: 1, or a schedule that ends at 0.
      betas: b1 and b2, each in [0, 1).
      beta3: b3, in [0, 1); default sqrt(b2).
      eps: keeps the root from zero, in units of the estimate.
      estim_lr0: d_0, far below any good rate.
      estim_lr_coef: coef, which multiplies the estimates.
      weight_decay: decoupled decay, multiplied by the rate r.
      safeguard_warmup: s adds (d_t / d_0) d_t g_t instead, for rates that start near 0.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      bias_correction: False leaves both powers out of r.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, and its state is four times their size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import prodigy
      >>> opt = prodigy(estim_lr0=0.5)
      >>> g = jnp.array([3.0, -2.0])
      >>> print(opt.update(g, opt.init(g), g)[0].round(3))
      [-0.5  0.5]

    References:
      Mishchenko & Defazio 2023, Prodigy: An Expeditiously Adaptive Parameter-Free Learner (arXiv
      2306.06101), Algorithm 4, and the authors' package prodigyopt, whose default is
      `bias_correction=False`. `optax.contrib.prodigy` is the same as ours.
    """
    b1, b2 = betas
    b3 = sqrt_of(b2) if beta3 is None else beta3

    def step(g: Signal, params: Signal) -> Signal:
        d = delay(1.0 * estim_lr0, name="estim_lr")
        rate = d * scheduled(learning_rate)
        if bias_correction:
            t = step_count()
            rate = rate * sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
        scale = d / estim_lr0
        m = d * g >> ema(b1, name="exp_avg")
        v = square(d * g) >> ema(b2, name="exp_avg_sq")
        weight = scale * (d if safeguard_warmup else rate)
        s = weight * g >> trace(b3, name="grad_sum")
        pulled = global_dot(g, initial_params() - params)
        n = scale * rate * pulled >> trace(b3, name="numerator_weighted")
        estimate = estim_lr_coef * divide_or_zero(n, global_sum(abs(s)))
        new = tap("estim_lr", d << maximum(d, estimate))
        u = divide(m, sqrt(v) + new * eps, eps)
        return -rate * (u >> decay_weights(weight_decay, mask=mask))

    return flow(step)


def sqrt_of(decay: Decay) -> Decay:
    """The square root of a decay, which may be a schedule."""
    if callable(decay):
        return lambda count: decay(count) ** 0.5
    return decay**0.5

"""D-Adaptation of AdamW."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
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
    maximum,
    scheduled,
    sqrt,
    square,
    step_count,
    tap,
    transformation,
)
from ...transforms.accumulate import one_minus_power
from .prodigy import sqrt_of


@method(
    "Defazio & Mishchenko 2023, Learning-Rate-Free Learning by D-Adaptation",
    arxiv="2301.07733",
    learning_rate=1.0,
    tags=("own-rate", "adam", "decoupled-decay"),
    small_model={"estim_lr0": 1e-3},
)
@transformation()
def dadapt_adamw(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: PositiveConstant = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    mask: Mask | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdamW that estimates its learning rate by a lower bound of the distance to the solution.

        r_t = d_t learning_rate sqrt(1 - b2^t) / (1 - b1^t),    b = sqrt(b2)
        n_t = b n_{t-1} + (1 - b) r_t <g_t, s_{t-1} / (sqrt(v_{t-1}) + eps)>
        m_t = b1 m_{t-1} + (1 - b1) r_t g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        s_t = b s_{t-1} + (1 - b) r_t g_t
        d_{t+1} = max(d_t, n_t / ((1 - b) |s_t|_1)),    d_1 = estim_lr0
        x_{t+1} = x_t - m_t / (sqrt(v_t) + eps) - r_t weight_decay x_t

    with products and norms over all leaves. The tap "estim_lr" is d_{t+1}.

    Args:
      learning_rate: a multiple of the estimate: 1, or a schedule that ends at 0.
      betas: b1 and b2, each in [0, 1).
      eps: added to the root.
      estim_lr0: d_1, far below any good rate.
      weight_decay: decoupled decay, multiplied by the rate r.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The optimizer; its state is three times the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import dadapt_adamw
      >>> opt = dadapt_adamw(estim_lr0=0.5)
      >>> g = jnp.array([3.0, -2.0])
      >>> print(opt.update(g, opt.init(g))[0].round(3))
      [-0.5  0.5]

    References:
      Defazio & Mishchenko 2023, Learning-Rate-Free Learning by D-Adaptation (arXiv 2301.07733).
      Followed is `optax.contrib.dadapt_adamw`, which corrects the bias of both moments.
    """
    b1, b2 = betas
    root = sqrt_of(b2)

    def step(g: Signal) -> Signal:
        t = step_count()
        d = delay(1.0 * estim_lr0, name="estim_lr")
        rate = d * scheduled(learning_rate)
        rate = rate * sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
        b = scheduled(root)
        past_v = delay(square(g), name="exp_avg_sq")
        past_s = delay(g, name="grad_sum")
        pulled = global_dot(g, divide(past_s, sqrt(past_v) + eps, eps))
        n = rate * pulled >> ema(b, name="numerator_weighted")
        m = rate * g >> ema(b1, name="exp_avg")
        v = past_v << scheduled(b2) * past_v + (1 - scheduled(b2)) * square(g)
        s = past_s << b * past_s + (1 - b) * rate * g
        estimate = divide_or_zero(n, (1 - b) * global_sum(abs(s)))
        tap("estim_lr", d << maximum(d, estimate))
        return -divide(m, sqrt(v) + eps, eps) >> decay_weights(
            weight_decay, "decoupled", learning_rate=rate, mask=mask
        )

    return flow(step)

"""SPAM."""

import optax

from ...registry import method
from ...schedules import spam_rewarmup
from ...transforms import (
    Count,
    Decay,
    DType,
    Flow,
    Length,
    Mask,
    NonNegative,
    Signal,
    chain,
    decay_weights,
    delay,
    divide,
    ema,
    flow,
    handed_on,
    named,
    reset_every,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
    where,
)
from ...transforms.accumulate import one_minus_power
from .spikes import clip_to_second_moment


@transformation()
def scale_by_spam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    threshold: NonNegative = 5000.0,
    reset_interval: Length = 500,
    warmup_steps: Length = 150,
    grad_accu_steps: Count = 20,
    bias_correction: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Adam with spiking gradient entries clipped, moments reset and a warm-up after every reset.

    .. math::
        m, v &\leftarrow 0 \quad \text{if } t \bmod k = 0 \\
        g_i &\leftarrow \mathrm{sign}(g_i) \sqrt{\theta v_i}
        \quad \text{where } g_i^2 > \theta v_i \text{ and } t \bmod k \ge a \\
        m &\leftarrow b_1 m + (1 - b_1) g, \qquad v \leftarrow b_2 v + (1 - b_2) g^2 \\
        u_t &= \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \, s_t \, \frac{m}{\sqrt v + \epsilon}, \qquad
        s_t = 1 - 0.99 \cdot \tfrac12 \Bigl(1 + \cos \frac{\pi q}{w + 1}\Bigr)

    where q = t mod k steps have passed since the last reset, and s = 1 before the first and for
    :math:`q \ge w`. The corrections count on through resets.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root before the correction.
      threshold: theta; 0 clips nothing.
      reset_interval: k in steps; 0 never resets.
      warmup_steps: w, length of the warm-up after a reset.
      grad_accu_steps: a, steps without clipping at the start and after a reset, in which v settles.
      bias_correction: whether the moments are debiased.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Huang et al. 2025, SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training (arXiv
      2501.06842). Follows TianjinYellow/SPAM-Optimizer, without its sparse momentum.
    """

    resets = reset_interval > 0

    def adam(g: Signal) -> Signal:
        v = delay(g, name="nu")
        since = step_count() % reset_interval if resets else step_count()
        g = where(since >= grad_accu_steps, clip_to_second_moment(g, v, threshold), g)
        m = g >> named("mu", ema(b1))
        v << b2 * v + (1 - scheduled(b2)) * square(g)
        return divide(m, sqrt(v.written) + eps, eps)

    def step(g: Signal) -> Signal:
        u = g >> adam_with_resets
        if bias_correction:
            t = step_count()
            u = u * (sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t))
        return u * scheduled(spam_rewarmup(reset_interval, warmup_steps)) if resets else u

    moments = flow(adam)
    adam_with_resets = reset_every(reset_interval, moments, phase=0) if resets else moments
    return flow(step)


@method(
    "Huang et al. 2025, SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
    arxiv="2501.06842",
    tags=("adam", "bounded", "heavy-tails", "resets", "early-phase"),
    learning_rate=1e-2,
    small_model={"reset_interval": 50, "warmup_steps": 10},
)
@transformation()
def spam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    threshold: NonNegative = 5000.0,
    reset_interval: Length = 500,
    warmup_steps: Length = 150,
    grad_accu_steps: Count = 20,
    bias_correction: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """SPAM: spike-aware Adam with momentum resets; the rule is that of `scale_by_spam`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, threshold, reset_interval, warmup_steps, grad_accu_steps, bias_correction: see
        `scale_by_spam`.
      weight_decay: decay of the weights after the step, times the rate, not damped by the warm-up.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: see `scale_by_spam`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import spam
      >>> opt = spam(0.5)
      >>> params = jnp.array([1.0, -1.0])
      >>> opt.update(2 * params, opt.init(params), params)[0].round(3).tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_spam),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

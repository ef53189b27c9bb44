"""LaProp."""

import optax

from ...registry import method
from ...transforms import (
    Count,
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    chain,
    decay_weights,
    delay,
    divide_or_zero,
    ema,
    flow,
    handed_on,
    maximum,
    named,
    running_max,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
    where,
)
from ...transforms.accumulate import one_minus_power


@transformation()
def scale_by_laprop(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    centered: bool = False,
    amsgrad: bool = False,
    centered_start: Count = 10,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Normalise first, momentum second: Adam's two halves in the other order.

        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = g_t / (sqrt(v_t / (1 - b2^t)) + eps)
        m_t = b1 m_{t-1} + (1 - b1) r_t u_t
        a_t = b1 a_{t-1} + (1 - b1) r_t
        out = m_t / (a_t / r_t)

    The rate r is inside the momentum, so it is an argument of the direction; what comes out is
    multiplied by it already (with a constant rate, r times the debiased average of u). Where
    r_t = 0, what comes out is m_t.

    Args:
      learning_rate: r, number or schedule.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root.
      centered: use the variance v_t - mu_t^2, mu_t the average of gradients with decay b2, after
        `centered_start` steps.
      amsgrad: divide by the root of the largest v (or variance) so far.
      centered_start: steps with plain v before the variance is used.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Ziyin, Wang & Ueda 2020, LaProp: Separating Momentum and Adaptivity in Adam (arXiv
      2002.04839). The paper multiplies by the rate after the momentum; equal for constant rates.
      We follow the authors' code.
    """

    def step(g: Signal) -> Signal:
        rate = scheduled(learning_rate)
        d = square(g) >> named("nu", ema(b2))
        settled = step_count() > centered_start if centered else True
        if centered:
            mean = g >> named("nu_mean", ema(b2))
            d = where(settled, maximum(d - square(mean), 0), d)
        if amsgrad:
            d = where(settled, where(settled, d, 0) >> named("nu_max", running_max()), d)
        u = divide_or_zero(g, sqrt(d / one_minus_power(b2, step_count())) + eps)
        m = rate * u >> named("mu", ema(b1))
        past = delay(0.0, name="rate_average")
        average = past << b1 * past + (1 - scheduled(b1)) * rate
        return where(rate == 0, m, m * divide_or_zero(rate, average))

    return flow(step)


@method(
    "Ziyin, Wang & Ueda 2020, LaProp: Separating Momentum and Adaptivity in Adam",
    arxiv="2002.04839",
    tags=("adam", "decoupled-decay"),
)
@transformation()
def laprop(
    learning_rate: optax.ScalarOrSchedule = 4e-4,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    centered: bool = False,
    amsgrad: bool = False,
    centered_start: Count = 10,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """LaProp; the rule is that of `scale_by_laprop`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, centered, amsgrad, centered_start: see `scale_by_laprop`.
      weight_decay: share of the params that is lost after each step, whatever the rate.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_laprop`.

    Returns:
      The optimizer; its state is twice the size of the params, and once more each for `centered`
      and `amsgrad`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import laprop
      >>> opt = laprop(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> opt.update(params, opt.init(params))[0].round(3).tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_laprop),
        scale_by_learning_rate(1.0),
        decay_weights(weight_decay, "stepped_independent", mask=mask),
    )

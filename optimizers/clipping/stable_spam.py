"""Stable-SPAM."""

from typing import Literal

import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Fraction,
    Length,
    Mask,
    NonNegative,
    Scalar,
    Signal,
    chain,
    decay_weights,
    delay,
    divide,
    flow,
    handed_on,
    lift,
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
from .spikes import clip_to_tracked_maximum, normalize_to_tracked_norm

ResetMode = Literal["official", "clean"]


@transformation()
def scale_by_stable_spam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    gamma1: Decay = 0.7,
    gamma2: Decay = 0.9,
    gamma3: Decay = 0.999,
    total_steps: Length | None = None,
    end_scale: Fraction = 0.5,
    reset_interval: Length = 1000,
    amsgrad: bool = False,
    reset_mode: ResetMode = "official",
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Adam on gradients whose spikes and norms are adapted to their history, with resets.

    Leaf by leaf: `clip_to_tracked_maximum(gamma3)`, `normalize_to_tracked_norm(a_t, gamma2)`, Adam
    with :math:`\beta_t` in place of :math:`b_1`, where

    .. math::
        a_t = \gamma_1 s_t, \quad \beta_t = b_1 s_t, \quad
        s_t = e + \tfrac{1 - e}{2} \Bigl(1 + \cos \frac{\pi t}{T + 1}\Bigr)

    and s = 1 without `total_steps`. Corrections use the present decays. At every k-th step, in the
    mode "clean", the moments and Adam's count start anew before the gradient is taken in. In the
    mode "official" the step is computed from the old moments as if it were the first, then the
    moments are zeroed and all corrections go on from count 2; the averages of maxima and norms are
    kept.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the debiased roots of Adam and of the norm scaling.
      gamma1: decay of the average norm.
      gamma2: decay of the average squared norm.
      gamma3: decay of the average maximum.
      total_steps: T, over which b1 and gamma1 fall to `end_scale` times themselves; None: they
        stay.
      end_scale: e.
      reset_interval: k in steps; 0 never resets.
      amsgrad: divide by the running maximum of the second moment, which resets do not touch.
      reset_mode: "official" or "clean".
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Huang et al. 2025, Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam (arXiv
      2502.17055). "official" follows TianjinYellow/StableSPAM, which made the paper's results;
      "clean" is the paper's algorithm.
    """
    official = reset_mode == "official"

    def step(g: Signal) -> Signal:
        t = step_count()
        scale = 1.0 if total_steps is None else _cosine(t, total_steps, end_scale)
        since, c = _counts(t, reset_interval, official)
        reset = t % reset_interval == 0 if reset_interval else False
        g = g >> clip_to_tracked_maximum(gamma3, count=since)
        g = g >> normalize_to_tracked_norm(scheduled(gamma1) * scale, gamma2, eps, count=since)
        decay = scheduled(b1) * scale
        m = _average(g, decay, "mu", reset, official)
        v = _average(square(g), scheduled(b2), "nu", reset, official)
        if amsgrad:
            v = v >> named("nu_max", running_max())
        root = sqrt(v / one_minus_power(b2, c)) + eps
        return divide(m / one_minus_power(decay, c), root, eps)

    return flow(step)


def _cosine(t: Signal, total_steps: int, end_scale: Fraction) -> Signal:
    wave = lift(lambda t: (1 + jnp.cos(jnp.pi * t / (total_steps + 1))) / 2, "cosine")(t)
    return end_scale + (1 - scheduled(end_scale)) * wave


def _counts(t: Signal, period: int, official: bool) -> tuple[Signal, Signal]:
    """The counts in the corrections of the statistics and of Adam."""
    if not period:
        return t, t
    if not official:
        return t, where(t < period, t, t % period + 1)
    since = where(t <= period, t, (t - 1) % period + 2)
    return since, where(t % period == 0, 1, since)


def _average(g: Signal, decay: Scalar, name: str, reset: Signal | bool, official: bool) -> Signal:
    """A moving average that is zeroed after ("official") or before the step of a reset."""
    past = delay(g, name=name)
    new = decay * (past if official else where(reset, 0.0, past)) + (1 - decay) * g
    past << (where(reset, 0.0, new) if official else new)
    return new


@method(
    "Huang et al. 2025, Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
    arxiv="2502.17055",
    tags=("adam", "bounded", "heavy-tails", "resets"),
    learning_rate=1e-2,
    small_model={"reset_interval": 50},
)
@transformation()
def stable_spam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    gamma1: Decay = 0.7,
    gamma2: Decay = 0.9,
    gamma3: Decay = 0.999,
    total_steps: Length | None = None,
    end_scale: Fraction = 0.5,
    reset_interval: Length = 1000,
    amsgrad: bool = False,
    reset_mode: ResetMode = "official",
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Stable-SPAM: Adam on stabilised gradients; the rule is that of `scale_by_stable_spam`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, gamma1, gamma2, gamma3, total_steps, end_scale, reset_interval, amsgrad,
        reset_mode: see `scale_by_stable_spam`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: see `scale_by_stable_spam`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import stable_spam
      >>> opt = stable_spam(0.5)
      >>> params = jnp.array([1.0, -1.0])
      >>> opt.update(2 * params, opt.init(params), params)[0].round(3).tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_stable_spam),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

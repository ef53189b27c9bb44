"""Spikes: gradient entries and norms far above what they were so far."""

import jax
import jax.numpy as jnp

from ...transforms import (
    Decay,
    Flow,
    Hyperparameter,
    NonNegative,
    Signal,
    Step,
    debias,
    delay,
    divide_or_zero,
    ema,
    flow,
    leaf_norm,
    lift,
    named,
    saturate,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
    where,
)
from ...transforms.accumulate import divide, one_minus_power, running_rms
from ...transforms.notation.roots import maximum_over, root


def _clipped(g: jax.Array, second_moment: jax.Array, threshold: float | jax.Array) -> jax.Array:
    allowed = threshold * second_moment
    spikes = ((g * jnp.conj(g)).real > allowed) & (threshold != 0)
    return jnp.where(spikes, jnp.sign(g) * root(allowed), g)


clip_to_second_moment = lift(
    _clipped,
    "clip_to_second_moment",
    doc="`clip_to_second_moment(g, v, threshold)`: entries with g^2 > threshold v become "
    "sign(g) sqrt(threshold v); a threshold of 0 clips nothing.",
)


@transformation()
def clip_spikes(threshold: NonNegative = 5000.0, b2: Decay = 0.999, start: Step = 20) -> Flow:
    """Clips entries whose square is far above the average square of the entry so far.

        g_t <- sign(g_t) sqrt(threshold v_{t-1})    where g_t^2 > threshold v_{t-1} and t >= start
        v_t = b2 v_{t-1} + (1 - b2) g_t^2           of the clipped gradient

    Args:
      threshold: how far above, as a factor of the (not debiased) average; 0 clips nothing.
      b2: decay of the average.
      start: first step that is clipped; at the first step the average is 0.

    References:
      Huang et al. 2025, SPAM: Spike-Aware Adam with Momentum Reset (arXiv 2501.06842).
    """

    def step(g: Signal) -> Signal:
        v = delay(g, name="nu")
        clipped = where(step_count() >= start, clip_to_second_moment(g, v, threshold), g)
        v << b2 * v + (1 - scheduled(b2)) * square(clipped)
        return clipped

    return flow(step)


def _debiased(average: Signal, decay: Hyperparameter, count: Signal | None) -> Signal:
    return average >> debias(decay) if count is None else average / one_minus_power(decay, count)


leaf_max_abs = lift(lambda x: maximum_over(jnp.abs(x)), "leaf_max_abs")


@transformation()
def clip_to_tracked_maximum(decay: Decay = 0.999, *, count: Signal | None = None) -> Flow:
    r"""Scales down the entries of each leaf that exceed its average largest entry so far.

    .. math::
        x_t = \gamma x_{t-1} + (1 - \gamma) \max |g_t|, \quad \hat x_t = x_t / (1 - \gamma^t),
        \quad g_i \leftarrow \frac{g_i}{\max |g_t|} \hat x_t \text{ where } |g_i| > \hat x_t

    Args:
      decay: gamma, of the average.
      count: a signal in place of t in the correction, for averages that are taken to restart.

    References:
      Huang et al. 2025, Stable-SPAM (arXiv 2502.17055).
    """

    def step(g: Signal) -> Signal:
        largest = leaf_max_abs(g)
        usual = saturate(_debiased(largest >> named("largest", ema(decay)), decay, count))
        return where(abs(g) > usual, g * divide_or_zero(usual, largest), g)

    return flow(step)


@transformation()
def normalize_to_tracked_norm(
    b1: NonNegative = 0.7, b2: Decay = 0.9, eps: NonNegative = 1e-8, *, count: Signal | None = None
) -> Flow:
    r"""Gives each leaf a norm as Adam would: the average of its norms over their mean square.

    .. math::
        g \leftarrow \frac{g}{\|g\|} \cdot \frac{\hat n_t}{\sqrt{\hat w_t} + \epsilon}

    with n the average (decay b1) of the norms and w that (decay b2) of their squares, debiased. A
    leaf of norm 0 stays.

    Args:
      b1: decay of the average norm; number or scalar signal.
      b2: decay of the average squared norm.
      eps: added to the root.
      count: a signal in place of t in the corrections, for averages that are taken to restart.

    References:
      Huang et al. 2025, Stable-SPAM (arXiv 2502.17055).
    """

    def step(g: Signal) -> Signal:
        norm = leaf_norm(g)
        n = _debiased(norm >> named("norm", ema(b1)), b1, count)
        seen = step_count() if count is None else count
        w = (norm >> named("norm_rms", running_rms(b2))) / sqrt(one_minus_power(b2, seen))
        return divide_or_zero(g, norm) * divide(n, w + eps, eps)

    return flow(step)

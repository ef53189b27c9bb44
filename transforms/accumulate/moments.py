"""Momentum in its three forms, and the root of a second moment with eps in its two places."""

from typing import Literal

import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import divide_or_zero, hypot, maximum, sqrt, where
from ..notation.hyperparameters import Count, Decay, DType, NonNegative, Number, Scalar, is_neutral
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled, step_count
from .ema import debias, ema, one_minus_power, trace

MomentumForm = Literal["heavy_ball", "ema", "debiased"]


@transformation()
def momentum(
    decay: Number | None,
    form: MomentumForm = "heavy_ball",
    nesterov: bool = False,
    *,
    dampening: Number = 0.0,
    dtype: DType | None = None,
) -> Flow:
    """Momentum in one of its three forms, which differ from the first step on.

    A transformation to send signals through.

        heavy_ball   b_t = d b_{t-1} + (1 - dampening) g_t,  b_1 = g_1      u_t = b_t
        ema          m_t = d m_{t-1} + (1 - d) g_t                         u_t = m_t
        debiased     the same                                              u_t = m_t / (1 - d^t)

    With `nesterov` the direction looks one step ahead along the momentum:

        heavy_ball   u_t = g_t + d b_t
        ema          u_t = d m_t + (1 - d) g_t
        debiased     u_t = d m_t / (1 - d^(t+1)) + (1 - d) g_t / (1 - d^t)

    A decay of exactly 0, or None, keeps no state and passes gradients on.

    Args:
      decay: d.
      form: one of the above.
      nesterov: look ahead.
      dampening: how much of a gradient is left out of a heavy ball; never of the first.
      dtype: storage dtype; default that of the signal, at least float32.

    References:
      Polyak 1964 (heavy ball); Sutskever et al. 2013, On the importance of initialization and
      momentum in deep learning (nesterov); Dozat 2016 (nesterov of the debiased average).
    """
    if decay is None or is_neutral(decay):
        return flow(lambda g: g)
    if form == "heavy_ball":
        return trace(decay, nesterov, dampening=dampening, dtype=dtype)

    def step(g: Signal) -> Signal:
        m = g >> ema(decay, dtype=dtype)
        if form == "ema":
            return decay * m + (1 - scheduled(decay)) * g if nesterov else m
        if not nesterov:
            return m >> debias(decay)
        ahead = m / one_minus_power(decay, step_count() + 1)
        return decay * ahead + (1 - scheduled(decay)) * (g >> debias(decay))

    return flow(step)


@transformation()
def running_max() -> Flow:
    """The largest value so far of every entry, never less than zero.

    A transformation to send signals through.
    """

    def step(v: Signal) -> Signal:
        past = delay(v)
        return past << maximum(past, v)

    return flow(step)


@transformation()
def running_rms(decay: Decay, *, from_first: bool = False, dtype: DType | None = None) -> Flow:
    """The root of the average square, of which it is the root that is kept.

    A transformation to send signals through.

        r_t = sqrt(decay r_{t-1}^2 + (1 - decay) x_t^2),    r_1 = |x_1|  if from_first

    For the norms of leaves, whose squares are no numbers at gradients of 1e18 over some hundred
    entries: an infinite average would stay so. A debiased one is r_t / sqrt(1 - decay^t).

    Args:
      decay: in [0, 1); a number, a schedule or a scalar signal.
      from_first: it starts at the first value, else at 0.
      dtype: storage dtype; default that of the signal, at least float32.
    """

    def step(x: Signal) -> Signal:
        kept = scheduled(decay)
        if from_first:
            kept = where(step_count() == 1, 0.0, kept)
        past = delay(x, dtype=dtype)
        return past << hypot(sqrt(kept) * past, sqrt(1 - kept) * x)

    return flow(step)


@checked()
def debiased_root(
    v: Signal,
    decay: Decay,
    eps: NonNegative,
    eps_root: NonNegative = 0.0,
    *,
    eps_before_correction: bool = False,
    count: Count | None = None,
) -> Signal:
    """The denominator of Adam: the root of a debiased second moment, kept away from zero.

    A function of signals.

        sqrt(v / (1 - decay^t) + eps_root) + eps
        (sqrt(v + eps_root) + eps) / sqrt(1 - decay^t)      if eps_before_correction

    Args:
      v: an `ema` of squares.
      decay: its decay.
      eps: added to the root.
      eps_root: added under the root.
      eps_before_correction: add both before v is debiased; eps then weighs more at first.
      count: t, how many squares v has seen, at least 1; default the number of the step.
    """
    correction = one_minus_power(decay, step_count() if count is None else count)
    if eps_before_correction:
        return (sqrt(v + eps_root) + eps) / sqrt(correction)
    return sqrt(v / correction + eps_root) + eps


@checked()
def divide(numerator: Scalar, denominator: Signal, eps: NonNegative) -> Signal:
    """numerator / denominator, of which `eps` is a part; what is 0/0 without it is 0.

    A function of signals.

    The guard costs a comparison per entry, so it is left out where eps is known to be positive.

    Args:
      numerator, denominator: tree signals.
      eps: the number that keeps the denominator from zero.
    """
    is_guard = isinstance(eps, int | float) and eps >= jnp.finfo(jnp.float32).tiny
    return numerator / denominator if is_guard else divide_or_zero(numerator, denominator)

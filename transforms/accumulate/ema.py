"""Exponential moving averages and their bias correction."""

import math

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import lift_elementwise, where
from ..notation.hyperparameters import Count, Decay, DType, Hyperparameter, Number, is_neutral
from ..notation.signal import Signal
from ..notation.steps import Start, delay, scheduled, step_count


@transformation()
def ema(
    decay: Decay,
    *,
    dtype: DType | None = None,
    start: Start | None = None,
    from_first: bool = False,
) -> Flow:
    """Exponential moving average, started at zero and not debiased.

    A transformation to send signals through.

        m_t = decay m_{t-1} + (1 - decay) g_t,    m_1 = g_1  if from_first

    Args:
      decay: in [0, 1); a number, a schedule or a scalar signal.
      dtype: storage dtype; default that of the signal, at least float32.
      start: what it starts at instead of zero; see `delay`.
      from_first: it starts at the first value.

    References:
      Kingma & Ba 2015, Adam: A Method for Stochastic Optimization.
    """

    def step(g: Signal) -> Signal:
        rate = scheduled(decay)
        if from_first:
            rate = where(step_count() == 1, 0.0, rate)
        past = delay(g, start, dtype=dtype)
        return past << rate * past + (1 - rate) * g

    return flow(step)


@transformation()
def interpolated_momentum(b1: Decay, b2: Decay, *, dtype: DType | None = None) -> Flow:
    """Momentum with two decays: one for what it gives, one for what it remembers.

    A transformation to send signals through.

        c_t = b1 m_{t-1} + (1 - b1) g_t       (given)
        m_t = b2 m_{t-1} + (1 - b2) g_t       (remembered)

    With b1 < b2 the newest gradient weighs more in the direction than in the memory.

    Args:
      b1: weight of the memory in the direction, in [0, 1).
      b2: decay of the memory, in [0, 1).
      dtype: storage dtype; default that of the signal, at least float32.

    References:
      Chen et al. 2023, Symbolic Discovery of Optimization Algorithms (Lion).
    """

    def step(g: Signal) -> Signal:
        past = delay(g, dtype=dtype)
        past << b2 * past + (1 - scheduled(b2)) * g
        return b1 * past + (1 - scheduled(b1)) * g

    return flow(step)


@transformation()
def debias(decay: Decay, count: Count | None = None) -> Flow:
    """Corrects the zero start of an `ema`: divides by 1 - decay^t.

    A transformation to send signals through.

    Args:
      decay: the average's decay, in [0, 1).
      count: t, how many values it has seen, at least 1; default the number of the step.
    """

    def step(m: Signal) -> Signal:
        return m / one_minus_power(decay, step_count() if count is None else count)

    return flow(step)


@checked()
def one_minus_power(decay: Decay, t: Count) -> Signal:
    """The scalar signal 1 - decay^t, without the cancellation that float32 would suffer.

    A function of signals.
    """
    return lift_elementwise(_one_minus_power, "1 - decay^t")(decay, t)


def _one_minus_power(decay: float | jax.Array, count: jax.Array) -> jax.Array:
    if isinstance(decay, int | float):
        return -jnp.expm1(count * math.log(decay)) if decay > 0 else jnp.ones(())
    none = decay <= 0  # of which the logarithm has no derivative
    power = count * jnp.log(jnp.where(none, jnp.ones_like(decay), decay))
    return jnp.where(none, jnp.ones_like(power), -jnp.expm1(power))


_one_minus_power.is_a_sum_of_shares = True  # type: ignore[attr-defined]


@transformation()
def trace(
    decay: Number, nesterov: bool = False, *, dampening: Number = 0.0, dtype: DType | None = None
) -> Flow:
    """Heavy-ball momentum: the undamped sum of past gradients.

    A transformation to send signals through.

        b_t = decay b_{t-1} + (1 - dampening) g_t,    b_1 = g_1
        u_t = g_t + decay b_t  if nesterov else  b_t

    Args:
      decay: momentum.
      nesterov: look ahead along the new buffer.
      dampening: how much of a gradient is left out of the buffer; never of the first.
      dtype: storage dtype; default that of the signal, at least float32.

    References:
      Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    def step(g: Signal) -> Signal:
        buffer = delay(g, dtype=dtype)
        new = buffer << decay * buffer + _undamped_first(dampening) * g
        return g + decay * new if nesterov else new

    return flow(step)


def _undamped_first(dampening: Number) -> Hyperparameter:
    if is_neutral(dampening):
        return 1.0
    undamped = lift_elementwise(lambda t, d: jnp.where(t == 1, 1.0, 1.0 - d), "undamped first")
    return undamped(step_count(), dampening)

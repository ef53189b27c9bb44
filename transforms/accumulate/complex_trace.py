"""Momentum with a complex decay, kept in two real buffers."""

from typing import TypeAlias

import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import lift, saturate
from ..notation.hyperparameters import Decay, Hyperparameter, Number
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled

Pair: TypeAlias = tuple[Number, Number]
Coefficients: TypeAlias = tuple[Pair, Pair]
"""A matrix of two rows."""


@transformation()
def complex_trace(momentum: Decay, phase: Number) -> Flow:
    r"""The real part of a heavy-ball buffer whose decay is complex.

    A transformation to send signals through.

    .. math::
        \mu_t = \beta \mu_{t-1} + g_t, \quad \beta = m e^{i \varphi}, \qquad
        u_t = \operatorname{Re} \mu_t = \sum_k m^k \cos(k \varphi) \, g_{t-k}

    A phase of 0 is heavy-ball momentum, one of pi negative momentum. Of complex gradients the real
    and the imaginary part each have a buffer of this kind.

    Args:
      momentum: m, the modulus of the decay, in [0, 1).
      phase: phi, in radians.

    References:
      Lorraine, Acuna, Vicol & Duvenaud 2021, Complex Momentum for Optimization in Games (arXiv
      2102.08431).
    """

    def step(g: Signal) -> Signal:
        beta = polar(momentum, phase)
        return complex_buffer(g, beta, (1.0, 0.0))[0]

    return flow(step)


@transformation()
def linked_trace(coefficients: Coefficients) -> Flow:
    r"""Two buffers that feed into each other, of which the first is given.

    A transformation to send signals through.

    .. math::
        a_t = c_{11} a_{t-1} + c_{12} b_{t-1} + g_t, \qquad
        b_t = c_{21} a_{t-1} + c_{22} b_{t-1}, \qquad u_t = a_t

    Args:
      coefficients: ((c_11, c_12), (c_21, c_22)); a rotation times a number below 1 makes this the
        `complex_trace`.

    References:
      Lorraine, Acuna, Vicol & Duvenaud 2021, Complex Momentum for Optimization in Games (arXiv
      2102.08431): recurrently linked momentum.
    """

    def step(g: Signal) -> Signal:
        return _linked(g, coefficients, (1.0, 0.0))[0]

    return flow(step)


@checked()
def polar(modulus: Hyperparameter, phase: Number) -> tuple[Signal, Signal]:
    """Real and imaginary part of modulus exp(i phase), either of which may be a schedule.

    A function of signals.
    """
    real = lift(lambda m, p: m * jnp.cos(p), "real part")
    imaginary = lift(lambda m, p: m * jnp.sin(p), "imaginary part")
    parts = scheduled(modulus), scheduled(phase)
    return real(*parts), imaginary(*parts)


@checked()
def complex_buffer(
    g: Signal, beta: tuple[Signal, Signal], gain: tuple[Hyperparameter, Hyperparameter]
) -> tuple[Signal, Signal]:
    """Real and imaginary part of the buffer beta mu + gain g.

    A function of signals.

    Args:
      g: real signal, or a complex one whose parts are treated apart.
      beta, gain: complex numbers as pairs of real ones.
    """
    return _linked(g, ((beta[0], -beta[1]), (beta[1], beta[0])), gain)


def _linked(
    g: Signal,
    coefficients: Coefficients,
    gain: tuple[Hyperparameter, Hyperparameter],
) -> tuple[Signal, Signal]:
    (c11, c12), (c21, c22) = coefficients
    a, b = delay(g, name="real"), delay(g, name="imaginary")
    return (
        a << saturate(c11 * a + c12 * b + gain[0] * g),
        b << saturate(c21 * a + c22 * b + gain[1] * g),
    )

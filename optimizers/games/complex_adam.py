"""Adam with a complex momentum."""

import math
from typing import Any

import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Number,
    Signal,
    chain,
    debiased_root,
    divide,
    ema,
    flow,
    lift,
    named,
    scale_by_learning_rate,
    scheduled,
    square,
    step_count,
    transformation,
)
from ...transforms.accumulate import complex_buffer, polar
from ...transforms.notation import handed_on
from .complex_momentum import ARXIV, PAPER


@transformation()
def scale_by_complex_adam(
    b1: Decay = 0.9,
    phase: Number = math.pi / 8,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    bias_correction: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Adam's direction with a complex decay of the momentum.

    With :math:`\beta = b_1 e^{i \varphi}` and v the debiased average of squared gradients,

    .. math::
        \mu_t = \beta \mu_{t-1} + g_t, \qquad
        u_t = \frac{\operatorname{Re} \mu_t}{\sqrt{v_t} + \epsilon}

    or, with bias_correction,

    .. math::
        \mu_t = \beta \mu_{t-1} + (1 - \beta) g_t, \qquad
        u_t = \frac{\operatorname{Re}(\mu_t / (1 - \beta^t))}{\sqrt{v_t} + \epsilon}

    The first form sums gradients up: at phase 0 it is 1 / (1 - b1) times longer in the end than
    Adam, which the second form is at phase 0. The factor 1 - beta turns the gradient, which is why
    the correction is complex, too.

    Args:
      b1: modulus of the momentum's decay, in [0, 1).
      phase: its argument, in radians.
      b2: decay of the second moment, in [0, 1).
      eps: added to the debiased root.
      bias_correction: average instead of summing up, and debias.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Lorraine, Acuna, Vicol & Duvenaud 2021, Complex Momentum for Optimization in Games (arXiv
      2102.08431), which trains with the form without correction. There is no official code; whether
      gradients are damped in it is not said.
    """

    def step(g: Signal) -> Signal:
        beta = polar(b1, phase)
        gain = (1 - beta[0], -beta[1]) if bias_correction else (1.0, 0.0)
        m, imaginary = complex_buffer(g, beta, gain)
        if bias_correction:
            m = _debiased(m, imaginary, b1, phase)
        v = square(g) >> named("nu", ema(b2))
        return divide(m, debiased_root(v, b2, eps), eps)

    return flow(step)


def _debiased(real: Signal, imaginary: Signal, modulus: Any, phase: Any) -> Signal:
    """The real part of mu / (1 - beta^t)."""
    t = lift(lambda t: t * jnp.ones(()), "t")(step_count())
    decay = lift(lambda m, t: m**t, "m^t")(scheduled(modulus), t)
    p, q = polar(decay, scheduled(phase) * t)
    return ((1 - p) * real - q * imaginary) / ((1 - p) ** 2 + q**2)


@method(PAPER, arxiv=ARXIV, tags=("adam", "games", "momentum"), learning_rate=1e-3)
@transformation()
def complex_adam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    phase: Number = math.pi / 8,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    bias_correction: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with a complex momentum; the rule is that of `scale_by_complex_adam`.

    Args:
      learning_rate: number or schedule.
      b1, phase, b2, eps, bias_correction: see `scale_by_complex_adam`.
      mu_dtype, nu_dtype: see `scale_by_complex_adam`.

    Returns:
      The optimizer; its state is three times the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import complex_adam
      >>> opt, params = complex_adam(0.5), jnp.zeros(2)
      >>> print(opt.update(jnp.array([4.0, -1.0]), opt.init(params))[0].round(3))
      [-0.5  0.5]
    """
    return chain(handed_on(scale_by_complex_adam), scale_by_learning_rate(learning_rate))

"""AdaBound, and AMSBound with its running maximum."""

from typing import Any

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    Signal,
    chain,
    clip,
    decay_weights,
    ema,
    flow,
    named,
    running_max,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
)
from ...transforms.accumulate import one_minus_power
from ...transforms.step_size import relative_rate

PAPER = "Luo et al. 2019, Adaptive Gradient Methods with Dynamic Bound of Learning Rate"
ARXIV = "1902.09843"


@transformation()
def scale_by_adabound(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    final_learning_rate: Positive = 0.1,
    gamma: Positive = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    amsbound: bool = False,
    base_learning_rate: Positive | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose rates, entry by entry, are squeezed towards that of SGD.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2          (amsbound: its running maximum)
        r_t = eta_t sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v_t) + eps)
        f_t = final_learning_rate eta_t / eta_1
        u_t = -clip(r_t, f_t (1 - 1/(gamma t + 1)), f_t (1 + 1/(gamma t))) m_t

    The bounds start at nearly 0 and far above f and both tend to f: Adam at first, SGD with an
    averaged momentum in the end. The rate and its sign are part of the rule: nothing may scale by
    the rate again.

    Args:
      learning_rate: eta, number or schedule.
      final_learning_rate: rate of the SGD at the end, for eta_1.
      gamma: speed of the transition; its time scale is 1/gamma steps.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to sqrt(v) before v is debiased.
      amsbound: use the running maximum of v.
      base_learning_rate: eta_1; default the schedule's first value. Needed where that is 0, and
        where a schedule reaches us as a number that changes (injected hyper-parameters).
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Raises:
      ValueError: if the schedule starts at 0 and there is no `base_learning_rate`.

    References:
      Luo et al. 2019 (arXiv 1902.09843) and Luolc/AdaBound, which we follow: no 1/sqrt(t), Adam's
      bias correction inside the clip, gamma in place of 1 - b2.
    """

    def step(g: Signal) -> Signal:
        t, rate = step_count(), scheduled(learning_rate)
        m = g >> named("mu", ema(b1))
        v = square(g) >> named("nu", ema(b2))
        if amsbound:
            v = v >> named("nu_max", running_max())
        corrected = rate * sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
        relative = relative_rate(learning_rate, base_learning_rate, "adabound")
        final = scheduled(final_learning_rate) * relative
        low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        return -clip(corrected / (sqrt(v) + eps), low, high) * m

    return flow(step)


def bounded(
    weight_decay: NonNegative, decoupled: bool, mask: Mask, *arguments: Any, **options: Any
) -> Flow:
    """`scale_by_adabound` with weight decay in front of it (L2) or after it, whatever the rate."""
    direction = scale_by_adabound(*arguments, **options)
    if decoupled:
        return chain(direction, decay_weights(weight_decay, "independent", mask=mask))
    return chain(decay_weights(weight_decay, mask=mask), direction)


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("adam", "bounded"),
)
@transformation()
def adabound(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    final_learning_rate: Positive = 0.1,
    gamma: Positive = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled: bool = False,
    mask: Mask | None = None,
    *,
    base_learning_rate: Positive | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaBound: from Adam to SGD by bounds on the rate; the rule is that of `scale_by_adabound`.

    Args:
      learning_rate, final_learning_rate, gamma, b1, b2, eps, base_learning_rate: see
        `scale_by_adabound`.
      weight_decay: added to the gradient as L2 or, if `decoupled`, taken off the params.
      decoupled: decay by `weight_decay` times the params, whatever the rate (AdaBoundW).
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: see `scale_by_adabound`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adabound
      >>> opt = adabound(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.5]
    """
    return bounded(
        weight_decay,
        decoupled,
        mask,
        *(learning_rate, final_learning_rate, gamma, b1, b2, eps),
        base_learning_rate=base_learning_rate,
    )

"""The warm-up after each reset of the momentum in SPAM."""

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from .arguments import check, check_steps
from .combinators import cyclic
from .decay_shapes import cosine
from .steps import Numeric, between, fractions, reached


@schedule(
    "Huang et al. 2025, SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
    arxiv="2501.06842",
)
def spam_rewarmup(
    reset_interval: int = 500, warmup_steps: int = 150, init_factor: Numeric = 0.01
) -> optax.Schedule:
    r"""Multiplier of the update that warms up again after each reset of the moments.

    With R = `reset_interval`, W = `warmup_steps` and k = (c + 1) mod R, for c >= R - 1,

    .. math::
        m(c) = 1 - (1 - m_0)\,\frac{1 + \cos(\pi k / (W + 1))}{2} \quad (k < W), \qquad
        m(c) = 1 \quad (k \ge W)

    and 1 before. The moments are reset at exactly the counts with k = 0, the first being R - 1.
    It multiplies the gradient step: put it before a decoupled weight decay.

    Args:
      reset_interval: R in steps.
      warmup_steps: W in steps. If it reaches R, the multiplier never gets to 1.
      init_factor: multiplier m_0 at the reset, in [0, 1].

    Returns:
      A schedule `step -> multiplier`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = spam_rewarmup(reset_interval=10, warmup_steps=3)
      >>> [round(float(schedule(c)), 3) for c in (0, 8, 9, 10, 11, 12, 19)]
      [1.0, 1.0, 0.01, 0.155, 0.505, 1.0, 0.01]

    References:
      Huang et al. 2025, https://arxiv.org/abs/2501.06842. The code
      (TianjinYellow/SPAM-Optimizer) is followed: W + 1 in the cosine, W in the comparison.
    """
    period = check_steps("reset_interval", reset_interval, 1)
    length = check_steps("warmup_steps", warmup_steps)
    check("init_factor", init_factor, 0.0, 1.0)

    def ramp(count: Numeric) -> jax.Array:
        warm = between(init_factor, 1.0, cosine(*fractions(count, 0, length + 1)))
        return jnp.where(reached(count, length), 1.0, warm)

    restarted = cyclic(ramp, period, start=period - 1)

    def multiplier(count: Numeric) -> jax.Array:
        return jnp.where(reached(count, period - 1), restarted(count), 1.0)

    return multiplier

"""Explore, then exploit: the schedule of Ranger21."""

import math

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from .arguments import check, check_steps, check_steps_or_fraction
from .combinators import ramp_into
from .steps import Numeric, between, fractions, reached


@schedule(
    "Ma & Yarats 2019, On the Adequacy of Untuned Warmup for Adaptive Optimization",
    arxiv="1910.04209",
    kind="law",
)
def untuned_warmup_steps(b2: float) -> int:
    r"""The warm-up that Adam needs without tuning: :math:`\lceil 2 / (1 - b_2) \rceil` steps.

    Args:
      b2: decay of Adam's second moment, in [0, 1).

    Returns:
      The number of steps, in the double precision of the published code: 21 for 0.9, since
      2 / (1 - 0.9) lies above 20.

    Raises:
      ValueError: for a decay out of range.

    Example:
      >>> untuned_warmup_steps(0.999), untuned_warmup_steps(0.9)
      (2000, 21)

    References:
      Ma & Yarats 2019, On the Adequacy of Untuned Warmup for Adaptive Optimization,
      https://arxiv.org/abs/1910.04209.
    """
    check("b2", b2, 0.0, 1.0, open_high=True)
    return math.ceil(2 / (1 - b2))


def _short_ranger21_schedule(peak_value: float, total_steps: int) -> optax.Schedule:
    return ranger21_schedule(peak_value, total_steps, end_value=peak_value / 100)


@schedule(
    "Wright & Demeure 2021, Ranger21: a synergistic deep learning optimizer",
    arxiv="2106.13731",
    build=_short_ranger21_schedule,
)
def ranger21_schedule(
    peak_value: Numeric,
    total_steps: int,
    b2: float = 0.999,
    warmup_steps: int | float | None = None,
    warmup_fraction: float = 0.22,
    warmdown_start: float = 0.72,
    end_value: Numeric = 3e-5,
    warmup: bool = True,
    warmdown: bool = True,
) -> optax.Schedule:
    r"""Linear warm-up, a flat rate, and a linear warm-down over the last 28 per cent.

    With t = c + 1, T = `total_steps`, S = int(`warmdown_start` T) and the warm-up length w,

    .. math::
        v &= v_{peak} \min(1, t/w) & t \le w \\
        v &= \max(v_{peak} - (v_{peak} - v_{end})\, u,\; v_{end}), \quad
        u = \min\Bigl(\frac{t + 1 - S}{T - S + 1}, 1\Bigr) & t \ge S

    where the second line replaces the first. The first step uses peak / w, the last `end_value`.

    Args:
      peak_value: rate of the flat part.
      total_steps: steps of the run.
      b2: decay of the optimizer's second moment, from which the warm-up follows.
      warmup_steps: an int in steps, or a float in [0, 1] as a fraction of `total_steps`; default
        `untuned_warmup_steps(b2)`, or `warmup_fraction` of the run where that exceeds 45 per cent.
      warmup_fraction: see `warmup_steps`.
      warmdown_start: fraction of the run at which the warm-down starts.
      end_value: rate at the last step and after it.
      warmup: whether there is a warm-up.
      warmdown: whether there is a warm-down.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = ranger21_schedule(1.0, total_steps=100, end_value=0.0)
      >>> [round(float(schedule(c)), 3) for c in (0, 10, 21, 50, 80, 99)]
      [0.045, 0.5, 1.0, 1.0, 0.655, 0.0]

    References:
      Wright & Demeure 2021, https://arxiv.org/abs/2106.13731. The code (lessw2020/Ranger21) is
      followed, without its Chebyshev perturbation, which is switched off there.
    """
    check("peak_value", peak_value)
    check("end_value", end_value)
    check("warmup_fraction", warmup_fraction, 0.0, 1.0)
    check("warmdown_start", warmdown_start, 0.0, 1.0)
    total_steps = check_steps("total_steps", total_steps, 1)
    if warmup_steps is None:
        rule = untuned_warmup_steps(b2)
        length = rule if rule / total_steps <= 0.45 else int(warmup_fraction * total_steps)
    else:
        length = check_steps_or_fraction("warmup_steps", warmup_steps, total_steps)
    length = length if warmup else 0
    turn = int(warmdown_start * total_steps)

    def rate(count: Numeric) -> jax.Array:
        flat = ramp_into(count, peak_value, 0.0, peak_value, length, offset=1)
        if not warmdown:
            return flat
        _, left = fractions(count, turn - 2, total_steps - turn + 1)
        down = jnp.maximum(between(peak_value, end_value, left), end_value)
        return jnp.where(reached(count, turn - 1), down, flat)

    return rate

"""The schedules of AdEMAMix, of its mixing weight and of its slow decay."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from .arguments import check, check_steps
from .steps import Numeric, between, fractions

PAPER = "Pagliardini, Ablin & Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older"
ARXIV = "2409.03137"


@schedule(PAPER, arxiv=ARXIV)
def ademamix_alpha_schedule(
    end_value: Numeric = 5.0,
    warmup_steps: int | None = None,
    init_value: Numeric = 0.0,
    count_offset: int = 0,
) -> optax.Schedule:
    r"""Linear ramp of AdEMAMix's weight alpha of the slow average.

    .. math::
        \alpha(c) = (1 - u)\,\alpha_{init} + u\,\alpha_{end}, \qquad u = \min(c/N, 1)

    Args:
      end_value: weight from `warmup_steps` on.
      warmup_steps: length N of the ramp in steps (required), usually the whole run.
      init_value: weight at step 0.
      count_offset: added to the count; 1 for the torch implementation, which counts from one.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = ademamix_alpha_schedule(5.0, warmup_steps=10)
      >>> [round(float(schedule(c)), 3) for c in (0, 1, 5, 10)]
      [0.0, 0.5, 2.5, 5.0]

    References:
      Pagliardini, Ablin & Grangier 2024, https://arxiv.org/abs/2409.03137. The optax version of
      apple/ml-ademamix is followed.
    """
    check("end_value", end_value)
    check("init_value", init_value)
    length = check_steps("warmup_steps", warmup_steps)
    offset = check_steps("count_offset", count_offset)

    def alpha(count: Numeric) -> jax.Array:
        _, left = fractions(count, -offset, length)
        return between(init_value, end_value, left)

    return alpha


@schedule(PAPER, arxiv=ARXIV)
def ademamix_b3_schedule(
    end_value: Numeric = 0.9999,
    init_value: Numeric = 0.9,
    warmup_steps: int | None = None,
    count_offset: int = 0,
) -> optax.Schedule:
    """Ramp of AdEMAMix's slow decay b3, linear in its half-life; see `half_life_interpolation`.

    Args:
      end_value: decay from `warmup_steps` on.
      init_value: decay at step 0, in the paper the optimizer's b1.
      warmup_steps: length of the ramp in steps (required), usually the whole run.
      count_offset: added to the count; 1 for the torch implementation, which counts from one.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = ademamix_b3_schedule(0.9999, 0.9, warmup_steps=10)
      >>> [round(float(schedule(c)), 5) for c in (0, 1, 5, 10)]
      [0.9, 0.99901, 0.9998, 0.9999]

    References:
      Pagliardini, Ablin & Grangier 2024, https://arxiv.org/abs/2409.03137. The optax version of
      apple/ml-ademamix is followed; the torch version adds 1e-8 inside the logarithm.
    """
    length = check_steps("warmup_steps", warmup_steps)
    return half_life_interpolation(init_value, end_value, length, count_offset)


@schedule(PAPER, arxiv=ARXIV, kind="law")
def half_life_interpolation(
    init_value: Numeric,
    end_value: Numeric,
    transition_steps: int | None,
    count_offset: int = 0,
) -> optax.Schedule:
    r"""Moves the decay of an average so that its half-life grows linearly.

    .. math::
        \frac{1}{\ln b(c)} = \frac{1 - u}{\ln b_{init}} + \frac{u}{\ln b_{end}}, \qquad
        u = \min(c/N, 1)

    A decay that is itself interpolated keeps a short memory for most of the ramp: half-way from
    0.9 to 0.9999 lies 0.95, here 0.9998.

    Args:
      init_value: decay at step 0, in [0, 1).
      end_value: decay from `transition_steps` on, in [0, 1).
      transition_steps: length N of the ramp in steps.
      count_offset: added to the count.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = half_life_interpolation(0.5, 0.99, transition_steps=4)
      >>> [round(float(schedule(c)), 3) for c in range(5)]
      [0.5, 0.962, 0.98, 0.987, 0.99]

    References:
      Pagliardini, Ablin & Grangier 2024, https://arxiv.org/abs/2409.03137.
    """
    check("init_value", init_value, 0.0, 1.0, open_high=True)
    check("end_value", end_value, 0.0, 1.0, open_high=True)
    length = check_steps("transition_steps", transition_steps)
    offset = check_steps("count_offset", count_offset)

    def decay(count: Numeric) -> jax.Array:
        done, left = fractions(count, -offset, length)
        inside = left > 0
        # the memories differ by orders of magnitude: 1 - left is not done at the start of long runs
        slope = _memory(init_value) * left + _memory(end_value) * jnp.where(inside, done, 0.5)
        value = jnp.where(slope < 0, jnp.exp(1 / jnp.where(slope < 0, slope, -1)), 0)
        return jnp.where(done <= 0, init_value, jnp.where(inside, value, end_value))

    return decay


def _memory(decay: Any) -> float | jax.Array:
    """`1 / ln b`, and 0 for a decay of 0; on the host where possible, for its digits near 1."""
    if isinstance(decay, (float, int)):
        return 1 / math.log(decay) if decay > 0 else 0.0
    positive = decay > 0
    return jnp.where(positive, 1 / jnp.log(jnp.where(positive, decay, 0.5)), 0)

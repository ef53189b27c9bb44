"""Cosine annealing raised to a power."""

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from .arguments import check, check_steps, check_steps_or_fraction
from .decay_shapes import cosine
from .steps import Numeric, as_float, between, elapsed, fractions, reached


def _short_cosine_power_annealing(peak_value: float, total_steps: int) -> optax.Schedule:
    return cosine_power_annealing(
        peak_value, total_steps, end_value=peak_value / 100, warmup_steps=0.05
    )


@schedule(
    "Hundt, Jain & Hager 2019, sharpDARTS: Faster and More Accurate Differentiable Architecture "
    "Search",
    arxiv="1903.09900",
    build=_short_cosine_power_annealing,
)
def cosine_power_annealing(
    peak_value: Numeric = 0.1,
    total_steps: int | None = None,
    end_value: Numeric = 1e-4,
    power: Numeric = 10.0,
    warmup_steps: int | float = 0,
) -> optax.Schedule:
    r"""Decays exponentially in the cosine: between cosine annealing and exponential decay.

    With W = `warmup_steps`, M = `total_steps` - W and E = c + 1 - W,

    .. math::
        k = \frac{1 + \cos(\pi E / M)}{2}, \qquad
        p = \frac{P^{k+1} - \min P^{k+1}}{\max P^{k+1} - \min P^{k+1}}, \qquad
        v(c) = v_{end} + (v_{peak} - v_{end})\, p

    with the extremes over the run, and p = (c + 1)/(W + 1) for the first W + 1 steps. P = 1 takes
    k in place of the power, which is cosine annealing that starts at the peak.

    Args:
      peak_value: the largest rate, exact at step W.
      total_steps: steps of the run (required); `end_value` is reached at its last step and held.
      end_value: the smallest rate.
      power: the base P, at least 1.
      warmup_steps: an int in steps, or a float in [0, 1] as a fraction of `total_steps`.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = cosine_power_annealing(1.0, total_steps=9, end_value=0.0, warmup_steps=1)
      >>> [round(float(schedule(c)), 3) for c in (0, 1, 2, 4, 6, 8)]
      [0.5, 1.0, 0.682, 0.24, 0.045, 0.0]

    References:
      Hundt, Jain & Hager 2019, https://arxiv.org/abs/1903.09900. The paper normalises with
      power^2 - power; the code (ahundt/sharpDARTS), followed here, with the extremes that occur,
      so that the first value without warm-up is the peak itself.
    """
    check("peak_value", peak_value)
    check("end_value", end_value)
    check("power", power, 1.0)
    total_steps = check_steps("total_steps", total_steps, 1)
    warmup = check_steps_or_fraction("warmup_steps", warmup_steps, total_steps)
    length = total_steps - warmup

    def proportion(count: Numeric) -> jax.Array:
        return cosine(*fractions(count, warmup - 1, length))

    def rate(count: Numeric) -> jax.Array:
        highest = proportion(max(warmup - 1, 0))
        # a single step has no range; its value is that of the warm-up in any case
        highest = jnp.where(highest > 0, highest, 1)
        decay = _power_curve(proportion(count), power) / _power_curve(highest, power)
        start = elapsed(count, -1, warmup + 1) / float(warmup + 1)
        weight = jnp.where(reached(count, warmup + 1), decay, start)
        return between(peak_value, end_value, jnp.where(reached(count, total_steps), 0, weight))

    return rate


def _power_curve(proportion: jax.Array, power: Numeric) -> jax.Array:
    """`(P^(k+1) - P) / (P ln P)`, whose limit at P = 1 is k: a power near 1 loses no digits."""
    log = jnp.log(as_float(power))
    safe = jnp.where(log > 0, log, 1)
    return jnp.where(log > 0, jnp.expm1(proportion * safe) / safe, proportion)

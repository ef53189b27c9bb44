"""Warm-up, stable, decay."""

import jax
import optax

from ..registry import schedule
from .arguments import check, check_steps, check_steps_or_fraction
from .combinators import ramp_into
from .decay_shapes import DecayShape, cooldown
from .steps import Numeric


def _short_wsd(peak_value: float, total_steps: int) -> optax.Schedule:
    return wsd(peak_value, total_steps, warmup_steps=0.1, decay_steps=0.2, decay_shape="1-sqrt")


@schedule(
    "Hu et al. 2024, MiniCPM: Unveiling the Potential of Small Language Models with Scalable "
    "Training Strategies",
    arxiv="2404.06395",
    build=_short_wsd,
)
def wsd(
    peak_value: Numeric,
    total_steps: int,
    warmup_steps: int | float = 0,
    decay_steps: int | float | None = None,
    decay_fraction: float = 0.1,
    end_value: Numeric = 0.0,
    init_value: Numeric = 0.0,
    decay_shape: str | DecayShape = "linear",
    half_life: Numeric | None = None,
) -> optax.Schedule:
    r"""Linear warm-up, a constant rate, and a decay over the last steps.

    With W = `warmup_steps`, T = `total_steps`, D = `decay_steps`, S = T - D and a shape q,

    .. math::
        v(c) &= v_{init} + (v_{peak} - v_{init})\, c/W & c < W \\
        v(c) &= v_{peak} & W \le c < S \\
        v(c) &= v_{end} + (v_{peak} - v_{end})\, q((c - S)/D) & S \le c < T

    and `end_value` from T on. The shapes are those of `cooldown`, which also branches a decay off
    any checkpoint of the stable phase.

    Args:
      peak_value: rate of the stable phase.
      total_steps: steps of the run.
      warmup_steps: an int in steps, or a float in [0, 1] as a fraction of `total_steps`. A
        warm-up that is longer than S cuts off the beginning of the decay.
      decay_steps: the same for the decay; default `int(decay_fraction * total_steps)`.
      decay_fraction: fraction of the run that decays, where `decay_steps` is not given.
      end_value: rate at the end.
      init_value: rate at step 0 where there is a warm-up (peak_value / 100 in the authors' runs).
      decay_shape: see `cooldown`.
      half_life: steps in which the "half_life" shape halves the rate.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = wsd(1.0, total_steps=20, warmup_steps=4, decay_steps=0.2)
      >>> [round(float(schedule(c)), 3) for c in (0, 2, 4, 16, 18, 20)]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]

    References:
      Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395; Hägele et al. 2024,
      https://arxiv.org/abs/2405.18392, whose code (epfml/schedules-and-scaling) is followed.
    """
    check("peak_value", peak_value)
    check("init_value", init_value)
    total_steps = check_steps("total_steps", total_steps, 1)
    check("decay_fraction", decay_fraction, 0.0, 1.0)
    warmup = check_steps_or_fraction("warmup_steps", warmup_steps, total_steps)
    decay = check_steps_or_fraction(
        "decay_steps", float(decay_fraction) if decay_steps is None else decay_steps, total_steps
    )
    stable_and_decay = cooldown(
        peak_value, total_steps - decay, decay, end_value, decay_shape, half_life
    )

    def rate(count: Numeric) -> jax.Array:
        return ramp_into(count, stable_and_decay(count), init_value, peak_value, warmup)

    return rate

"""Linear decay to zero, with warm-up."""

import jax
import optax

from ..registry import schedule
from .arguments import check, check_steps, check_steps_or_fraction
from .combinators import ramp_into
from .steps import Numeric, between, fractions


def _short_linear_decay(peak_value: float, total_steps: int) -> optax.Schedule:
    return linear_decay(peak_value, total_steps, warmup_steps=0.1)


@schedule(
    "Defazio et al. 2023, When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    arxiv="2310.07831",
    build=_short_linear_decay,
)
def linear_decay(
    peak_value: Numeric,
    total_steps: int,
    warmup_steps: int | float = 0,
    init_value: Numeric = 0.0,
    end_value: Numeric = 0.0,
    theory_offset: bool = False,
) -> optax.Schedule:
    r"""Linear warm-up, then linear decay over the rest of the run.

    With W = `warmup_steps`, T = `total_steps` and o = 1 for `theory_offset`, else 0,

    .. math::
        v(c) &= v_{init} + (v_{peak} - v_{init})\,(c + o)/W & c < W \\
        v(c) &= v_{peak} + (v_{end} - v_{peak})\,\min(c - W + o, T - W)/(T - W) & c \ge W

    With o = 0 all T steps move; with o = 1 the first step uses peak (1 - 1/T) and the last does
    not move, which is the shape with the best worst-case bound for the last iterate.

    Args:
      peak_value: rate at the end of the warm-up.
      total_steps: steps of the run, the warm-up included; `end_value` holds after it.
      warmup_steps: an int in steps, or a float in [0, 1] as a fraction of `total_steps`.
      init_value: rate at step 0 where there is a warm-up.
      end_value: rate at the end.
      theory_offset: the exact shape of the theorem, one step ahead.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range, or a warm-up longer than the run.

    Example:
      >>> schedule = linear_decay(1.0, total_steps=10, warmup_steps=0.2)
      >>> [round(float(schedule(c)), 3) for c in (0, 1, 2, 6, 10)]
      [0.0, 0.5, 1.0, 0.5, 0.0]

    References:
      Defazio et al. 2023, https://arxiv.org/abs/2310.07831. The common form (o = 0) is that of
      the paper's experiments, the other that of its theorem and of the repository
      facebookresearch/adaptive_scheduling.
    """
    for name, value in (
        ("peak_value", peak_value),
        ("init_value", init_value),
        ("end_value", end_value),
    ):
        check(name, value)
    total_steps = check_steps("total_steps", total_steps, 1)
    warmup = check_steps_or_fraction("warmup_steps", warmup_steps, total_steps)
    offset = int(theory_offset)

    def rate(count: Numeric) -> jax.Array:
        _, left = fractions(count, warmup - offset, total_steps - warmup)
        decay = between(peak_value, end_value, left)
        return ramp_into(count, decay, init_value, peak_value, warmup, offset)

    return rate

"""Schedules of schedules: joined, warmed up, sampled, repeated."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from ..transforms.notation.checks import refusal
from .arguments import check, check_steps
from .steps import Count, Numeric, as_count, between, fractions, modulo, reached, since, within


@schedule("As optax.join_schedules, exact for any count", kind="combinator")
def join(schedules: Sequence[optax.Schedule], boundaries: Sequence[int]) -> optax.Schedule:
    """One schedule after another, each counting from its own start.

    As `optax.join_schedules`, but exact for counts beyond 2^24 or 2^31, and no schedule ever sees
    a negative count.

    Args:
      schedules: the schedules in order.
      boundaries: first step of every schedule but the first, in increasing order.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: if there is not one boundary fewer than schedules, or they do not increase.

    Example:
      >>> schedule = join([optax.constant_schedule(1.0), optax.linear_schedule(1.0, 0.0, 4)], [10])
      >>> [round(float(schedule(c)), 3) for c in (0, 10, 11, 14)]
      [1.0, 1.0, 0.75, 0.0]
    """
    if len(schedules) != len(boundaries) + 1:
        raise refusal(
            f"boundaries must be one fewer than schedules, "
            f"got {len(boundaries)} for {len(schedules)} schedules"
        )
    starts = check_boundaries(boundaries)

    def value(count: Numeric) -> jax.Array:
        joined = jnp.asarray(schedules[0](as_count(count)))
        for start, later in zip(starts, schedules[1:], strict=True):
            joined = jnp.where(reached(count, start), later(since(count, start)), joined)
        return joined

    return value


def check_boundaries(boundaries: Sequence[int]) -> list[int]:
    """The boundaries as Python ints, which must increase."""
    starts = [check_steps("boundaries", start) for start in boundaries]
    if sorted(set(starts)) != starts:
        raise refusal(f"boundaries must increase, got {starts}")
    return starts


@schedule(
    "Goyal et al. 2017, Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
    arxiv="1706.02677",
    kind="combinator",
)
def warmup(
    schedule: optax.Schedule, warmup_steps: int, init_value: Numeric = 0.0
) -> optax.Schedule:
    """Linear warm-up in front of any schedule, which starts when the warm-up has ended.

    .. math::
        v(c) = v_0 + (s(0) - v_0)\\, c / W \\quad (c < W), \\qquad s(c - W) \\quad (c \\ge W)

    Args:
      schedule: the schedule s that follows.
      warmup_steps: length W of the warm-up in steps; 0 for none.
      init_value: value at step 0.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = warmup(optax.linear_schedule(1.0, 0.0, 4), warmup_steps=4)
      >>> [round(float(schedule(c)), 3) for c in range(0, 9, 2)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check("init_value", init_value)
    length = check_steps("warmup_steps", warmup_steps)

    def value(count: Numeric) -> jax.Array:
        peak = schedule(as_count(0))
        return ramp_into(count, schedule(since(count, length)), init_value, peak, length)

    return value


def ramp_into(
    count: Numeric,
    after: Numeric,
    init_value: Numeric,
    peak_value: Numeric,
    warmup_steps: int,
    offset: int = 0,
) -> jax.Array:
    """The linear ramp while `count < warmup_steps`, the value `after` from then on.

    With `offset` 1 the ramp is one step ahead and the last of its steps has the peak.
    """
    done, _ = fractions(count, -offset, warmup_steps)
    return jnp.where(reached(count, warmup_steps), after, between(peak_value, init_value, done))


@schedule(
    "Chen, Wolfe & Kyrillidis 2021, REX: Revisiting Budgeted Training with an Improved Schedule",
    arxiv="2107.04197",
    kind="combinator",
)
def sampled(
    schedule: optax.Schedule, sampling_steps: int = 1, boundaries: Sequence[int] | None = None
) -> optax.Schedule:
    """Holds a schedule constant between sampling points: a staircase.

    The value of each interval is that at its start.

    Args:
      schedule: the profile.
      sampling_steps: length of the intervals in steps.
      boundaries: sampling points after step 0, in place of equal intervals; see `milestones`.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for an interval below 1, or boundaries that do not increase.

    Example:
      >>> schedule = sampled(optax.linear_schedule(1.0, 0.0, 10), sampling_steps=5)
      >>> [round(float(schedule(c)), 3) for c in (0, 4, 5, 9, 10)]
      [1.0, 1.0, 0.5, 0.5, 0.0]

    References:
      Chen, Wolfe & Kyrillidis 2021, REX, https://arxiv.org/abs/2107.04197, which separates a
      schedule into a profile and a sampling rate.
    """
    period = check_steps("sampling_steps", sampling_steps, 1)
    points = check_boundaries(boundaries) if boundaries is not None else None

    if period == 1 and points is None:
        return schedule

    def sample(count: Count) -> Count:
        if points is None:
            return count - modulo(count, period)
        held: Count = count * 0
        for last, point in pairwise([0, *points]):
            held = held + reached(count, point) * (within(count, point) - within(count, last))
        return held

    return lambda count: schedule(sample(as_count(count)))


@schedule(
    "Smith 2017, Cyclical Learning Rates for Training Neural Networks",
    arxiv="1506.01186",
    kind="combinator",
)
def cyclic(schedule: optax.Schedule, period: int, start: int = 0) -> optax.Schedule:
    """Restarts a schedule every `period` steps.

    .. math::
        v(c) = s(\\max(c - c_0, 0) \\bmod R)

    Args:
      schedule: the schedule s of one period.
      period: length R of a period in steps.
      start: first step c_0 of the first period; before it the value is that of its beginning.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for a period below 1 or a negative start.

    Example:
      >>> schedule = cyclic(optax.linear_schedule(1.0, 0.0, 4), period=4)
      >>> [round(float(schedule(c)), 3) for c in range(6)]
      [1.0, 0.75, 0.5, 0.25, 1.0, 0.75]
    """
    period = check_steps("period", period, 1)
    start = check_steps("start", start)

    return lambda count: schedule(modulo(since(count, start), period))

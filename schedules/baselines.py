"""The schedules that everyone compares with: steps, exponential, cosine, one cycle, plateau."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from ..transforms.notation.checks import refusal
from .arguments import check, check_steps
from .combinators import check_boundaries
from .decay_shapes import cosine
from .steps import Numeric, as_float, between, elapsed, fractions, reached, times


@schedule(
    "Chen, Wolfe & Kyrillidis 2021, REX: Revisiting Budgeted Training with an Improved Schedule",
    arxiv="2107.04197",
    kind="law",
)
def milestones(percentages: str, total_steps: int) -> list[int]:
    """Steps at given percentages of a run, for `step_decay` and `sampled`.

    Args:
      percentages: whole numbers in [0, 100] joined by dashes, such as "30-60-90" or "50-75".
      total_steps: steps of the run.

    Returns:
      The steps, rounded down.

    Raises:
      ValueError: for anything else than percentages.

    Example:
      >>> milestones("30-60-90", total_steps=200)
      [60, 120, 180]
    """
    total_steps = check_steps("total_steps", total_steps, 1)
    parts = percentages.split("-")
    if not all(part.isdecimal() and int(part) <= 100 for part in parts):
        raise refusal(
            f"percentages must be whole numbers in [0, 100] joined by dashes, got {percentages!r}"
        )
    # in integers: 0.29 * 100 is less than 29
    return [int(part) * total_steps // 100 for part in parts]


def _short_step_decay(peak_value: float, total_steps: int) -> optax.Schedule:
    return step_decay(peak_value, milestones("30-60-90", total_steps))


@schedule(
    "He et al. 2015, Deep Residual Learning for Image Recognition",
    arxiv="1512.03385",
    build=_short_step_decay,
)
def step_decay(
    init_value: Numeric, boundaries: Sequence[int], factor: Numeric = 0.1
) -> optax.Schedule:
    r"""A constant rate that is multiplied by a factor at given steps.

    .. math::
        v(c) = v_{init}\, f^{\,\#\{b \in boundaries:\ c \ge b\}}

    Args:
      init_value: rate at step 0.
      boundaries: steps at which the rate drops, increasing; see `milestones`.
      factor: the factor f, positive.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range, or boundaries that do not increase.

    Example:
      >>> schedule = step_decay(1.0, boundaries=[10, 20])
      >>> [round(float(schedule(c)), 3) for c in (9, 10, 19, 20)]
      [1.0, 0.1, 0.1, 0.01]

    References:
      He et al. 2015, https://arxiv.org/abs/1512.03385; torch's MultiStepLR is followed.
    """
    check("init_value", init_value)
    check("factor", factor, open_low=True)
    starts = check_boundaries(boundaries)

    def rate(count: Numeric) -> jax.Array:
        passed = elapsed(count, 0, 0)
        for start in starts:
            passed = passed + reached(count, start)
        return jnp.asarray(init_value) * jnp.asarray(factor) ** passed

    return rate


def _short_stage_decay(peak_value: float, total_steps: int) -> optax.Schedule:
    return stage_decay(peak_value, total_steps, min(5, total_steps))


@schedule(
    "Pan et al. 2024, Accelerated Convergence of Stochastic Heavy Ball Method under Anisotropic "
    "Gradient Noise",
    arxiv="2312.14567",
    build=_short_stage_decay,
)
def stage_decay(
    init_value: Numeric, total_steps: int, num_stages: int, factor: Numeric = 2.0
) -> optax.Schedule:
    r"""Stages of equal length, each with the rate of the one before divided by a factor.

    .. math::
        v(c) = v_{init}\, f^{-l}, \qquad l = \min(\lfloor c / K \rfloor, n - 1), \qquad
        K = \lfloor T / n \rfloor

    Args:
      init_value: rate of the first stage.
      total_steps: steps T of the run; what the division leaves over lengthens the last stage.
      num_stages: number n of stages, at most T.
      factor: the factor f, positive.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = stage_decay(1.0, total_steps=10, num_stages=3)
      >>> [round(float(schedule(c)), 3) for c in (0, 2, 3, 6, 9)]
      [1.0, 1.0, 0.5, 0.25, 0.25]

    References:
      Pan et al. 2024, https://arxiv.org/abs/2312.14567. There is no published code.
    """
    check("init_value", init_value)
    check("factor", factor, open_low=True)
    total_steps = check_steps("total_steps", total_steps, 1)
    num_stages = check_steps("num_stages", num_stages, 1, total_steps)

    def rate(count: Numeric) -> jax.Array:
        stage = as_float(times(count, total_steps // num_stages)).clip(0, float(num_stages - 1))
        return jnp.asarray(init_value) / jnp.asarray(factor) ** stage

    return rate


def _short_exponential_to(peak_value: float, total_steps: int) -> optax.Schedule:
    return exponential_to(peak_value, total_steps)


@schedule(
    "Chen, Wolfe & Kyrillidis 2021, REX: Revisiting Budgeted Training with an Improved Schedule",
    arxiv="2107.04197",
    build=_short_exponential_to,
)
def exponential_to(
    init_value: Numeric, transition_steps: int, end_factor: Numeric = 0.01
) -> optax.Schedule:
    r"""Exponential decay to a fraction of the initial rate over the budget.

    .. math::
        v(c) = v_{init}\, f^{\,c / T}

    It goes on at the same pace after T steps.

    Args:
      init_value: rate at step 0.
      transition_steps: the budget T in steps.
      end_factor: fraction f of the initial rate at step T, positive.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = exponential_to(1.0, transition_steps=10)
      >>> [round(float(schedule(c)), 4) for c in (0, 5, 10, 20)]
      [1.0, 0.1, 0.01, 0.0001]

    References:
      The exponential baseline of Chen, Wolfe & Kyrillidis 2021, https://arxiv.org/abs/2107.04197;
      torch's ExponentialLR.
    """
    check("init_value", init_value)
    check("end_factor", end_factor, open_low=True)
    length = check_steps("transition_steps", transition_steps, 1)

    def rate(count: Numeric) -> jax.Array:
        return jnp.asarray(init_value) * jnp.asarray(end_factor) ** (elapsed(count) / float(length))

    return rate


def _short_cosine_decay(peak_value: float, total_steps: int) -> optax.Schedule:
    return cosine_decay(peak_value, total_steps)


@schedule(
    "Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts",
    arxiv="1608.03983",
    build=_short_cosine_decay,
)
def cosine_decay(init_value: Numeric, decay_steps: int, end_value: Numeric = 0.0) -> optax.Schedule:
    r"""Half a cosine from one rate to another.

    .. math::
        v(c) = v_{end} + (v_{init} - v_{end})\,\frac{1 + \cos(\pi u)}{2}, \qquad u = \min(c, N)/N

    `optax.cosine_decay_schedule` with the end given as a rate, not as a fraction.

    Args:
      init_value: rate at step 0.
      decay_steps: length N of the decay in steps.
      end_value: rate from step N on.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = cosine_decay(1.0, decay_steps=4)
      >>> [round(float(schedule(c)), 3) for c in range(5)]
      [1.0, 0.854, 0.5, 0.146, 0.0]

    References:
      Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983.
    """
    check("init_value", init_value)
    check("end_value", end_value)
    length = check_steps("decay_steps", decay_steps, 1)

    def rate(count: Numeric) -> jax.Array:
        return between(init_value, end_value, cosine(*fractions(count, 0, length)))

    return rate

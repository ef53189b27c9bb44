"""One cycle of the rate, and its partner for the momentum."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from .arguments import check, check_choice, check_steps
from .decay_shapes import cosine, linear
from .steps import Numeric, after, between, fractions

ANNEALS = {"cos": cosine, "linear": linear}


def _short_one_cycle(peak_value: float, total_steps: int) -> optax.Schedule:
    return one_cycle(total_steps, peak_value)


@schedule(
    "Smith & Topin 2019, Super-Convergence: Very Fast Training of Neural Networks Using Large "
    "Learning Rates",
    arxiv="1708.07120",
    build=_short_one_cycle,
)
def one_cycle(
    total_steps: int,
    peak_value: Numeric,
    pct_start: float = 0.3,
    div_factor: Numeric = 25.0,
    final_div_factor: Numeric = 1e4,
    anneal: str = "cos",
    three_phase: bool = False,
) -> optax.Schedule:
    r"""From a low rate up to the peak and down to a rate far lower than the first.

    With :math:`v_0` = peak / `div_factor`, :math:`v_1 = v_0` / `final_div_factor`, p =
    `pct_start` and T = `total_steps`, the phases go

    - from :math:`v_0` to the peak at p T - 1, from there to :math:`v_1` at T - 1; or
    - in three: to the peak at p T - 1, back to :math:`v_0` at 2 p T - 2, to :math:`v_1` at T - 1.

    The ends of the phases are not rounded. Inside a phase from x to y, with u the part done, the
    value is y + (x - y)(1 + cos(pi u))/2 or x + (y - x) u.

    Args:
      total_steps: steps of the run; the last value holds after it.
      peak_value: the largest rate.
      pct_start: fraction of the run in which the rate rises, in [0, 1]; half of it at most with
        three phases.
      div_factor: peak over first rate, positive.
      final_div_factor: first over last rate, positive.
      anneal: "cos" or "linear".
      three_phase: whether the rate comes down as it went up before it falls to the last rate.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = one_cycle(total_steps=20, peak_value=1.0)
      >>> [round(float(schedule(c)), 3) for c in (0, 3, 5, 12, 19)]
      [0.04, 0.668, 1.0, 0.5, 0.0]

    References:
      Smith & Topin 2019, https://arxiv.org/abs/1708.07120. torch's OneCycleLR is followed, whose
      phases end between steps (`optax.cosine_onecycle_schedule` rounds them).
    """
    check("peak_value", peak_value)
    check("div_factor", div_factor, open_low=True)
    check("final_div_factor", final_div_factor, open_low=True)
    first = peak_value / div_factor
    last = first / final_div_factor
    turns = (peak_value, first) if three_phase else (peak_value,)
    return _phases(total_steps, pct_start, three_phase, anneal, [first, *turns, last])


@schedule(
    "Smith & Topin 2019, Super-Convergence: Very Fast Training of Neural Networks Using Large "
    "Learning Rates",
    arxiv="1708.07120",
)
def one_cycle_momentum(
    total_steps: int,
    pct_start: float = 0.3,
    base_momentum: Numeric = 0.85,
    max_momentum: Numeric = 0.95,
    anneal: str = "cos",
    three_phase: bool = False,
) -> optax.Schedule:
    """The momentum of the one-cycle policy: low where the rate is high.

    It goes from `max_momentum` to `base_momentum` and back in the phases of `one_cycle`, and in
    the last of three phases it stays at `max_momentum`. It reaches an optimizer through
    `optax.inject_hyperparams`.

    Args:
      total_steps: steps of the run; the last value holds after it.
      pct_start: see `one_cycle`.
      base_momentum: momentum at the peak of the rate, in [0, 1].
      max_momentum: momentum at the beginning and end, in [0, 1].
      anneal: "cos" or "linear".
      three_phase: see `one_cycle`.

    Returns:
      A schedule `step -> momentum`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = one_cycle_momentum(total_steps=20)
      >>> [round(float(schedule(c)), 3) for c in (0, 3, 5, 12, 19)]
      [0.95, 0.885, 0.85, 0.9, 0.95]

    References:
      Smith & Topin 2019, https://arxiv.org/abs/1708.07120; torch's OneCycleLR is followed.
    """
    check("base_momentum", base_momentum, 0.0, 1.0)
    check("max_momentum", max_momentum, 0.0, 1.0)
    turns = (max_momentum,) * (2 if three_phase else 1)
    values = [max_momentum, base_momentum, *turns]
    return _phases(total_steps, pct_start, three_phase, anneal, values)


def _phases(
    total_steps: int,
    pct_start: float,
    three_phase: bool,
    anneal: str,
    values: Sequence[Numeric],
) -> optax.Schedule:
    total = check_steps("total_steps", total_steps, 1)
    check("pct_start", pct_start, 0.0, 0.5 if three_phase else 1.0)
    check_choice("anneal", anneal, ANNEALS)
    peak = float(pct_start * total) - 1
    turns = [0.0, peak, float(2 * pct_start * total) - 2] if three_phase else [0.0, peak]
    ends = [*turns, float(total - 1)]
    shape = ANNEALS[anneal]

    def value(count: Numeric) -> jax.Array:
        def phase(i: int) -> jax.Array:
            left = shape(*fractions(count, ends[i], ends[i + 1] - ends[i]))
            return between(values[i], values[i + 1], left)

        current = phase(0)
        for i in range(1, len(ends) - 1):
            current = jnp.where(after(count, ends[i]), phase(i), current)
        return current

    return value

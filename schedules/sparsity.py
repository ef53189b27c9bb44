"""Gradual pruning: the sparsity that is in force at each step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..registry import schedule
from ..transforms.notation.refusing import refusing
from .arguments import check, check_choice, check_steps
from .steps import Count, Numeric, as_count, between, fractions, modulo, reached, since

PAPER = (
    "Jin et al. 2025, The Journey Matters: Average Parameter Count over Pre-training Unifies "
    "Sparse and Dense Scaling Laws"
)
ARXIV = "2501.12486"


@refusing
@dataclass(frozen=True, eq=False)
class SparsitySchedule:
    """A schedule `step -> sparsity` that also knows when masks are recomputed.

    Attributes:
      init_sparsity: sparsity before the first update of the masks.
      final_sparsity: sparsity at the end.
      start: first step at which masks may be recomputed.
      end: last such step.
      update_interval: masks are recomputed at multiples of it.
      power: of the polynomial.
    """

    init_sparsity: Numeric
    final_sparsity: Numeric
    start: int
    end: int
    update_interval: int
    power: Numeric

    def __call__(self, count: Numeric) -> jax.Array:
        """The sparsity in force at a step."""
        steps = as_count(count)
        last = steps - modulo(steps, self.update_interval)
        # the end is no multiple of the interval in general: after it the last multiple holds
        held = last - since(last, self.end - self.end % self.update_interval)
        _, left = fractions(held, self.start - 1, self.end - self.start)
        pruned = between(self.init_sparsity, self.final_sparsity, left**self.power)
        return jnp.where(self._has_updated(count), pruned, self.init_sparsity)

    def is_mask_update(self, count: Numeric) -> Count:
        """Whether the masks are recomputed at a step."""
        inside = reached(count, self.start) & ~reached(count, self.end + 1)
        return inside & (modulo(count, self.update_interval) == 0)

    def _has_updated(self, count: Numeric) -> Count:
        first = -(-self.start // self.update_interval) * self.update_interval
        return reached(count, first) & (first <= self.end)


@schedule(PAPER, arxiv=ARXIV)
def sparsity_schedule(
    final_sparsity: Numeric,
    total_steps: int,
    start_fraction: float = 0.25,
    end_fraction: float = 0.75,
    update_interval: int = 1,
    power: Numeric = 3.0,
    init_sparsity: Numeric = 0.0,
    fractions_of: str = "steps",
) -> SparsitySchedule:
    r"""Dense at first, pruned step by step in the middle of the run, sparse at the end.

    With s and e the rounded start and end, masks are recomputed at the multiples of
    `update_interval` in [s, e], and at each such step c the sparsity becomes

    .. math::
        f + (i - f)\,(1 - u)^{power}, \qquad u = \frac{\min(c + 1 - s,\ e - s)}{e - s}

    with i = `init_sparsity` and f = `final_sparsity`. It holds between the updates and after the
    last; before the first it is i. With e = s it goes to f at once. The first update already
    prunes; an interval that puts the last update before e - 1 does not quite reach f.

    Args:
      final_sparsity: fraction of entries that are zero at the end, in [0, 1).
      total_steps: steps of the run.
      start_fraction: fraction of the run at which pruning starts.
      end_fraction: fraction of the run at which it ends.
      update_interval: steps between updates of the masks.
      power: 3 for the cubic law, 1 for a linear one; positive.
      init_sparsity: fraction of entries that are zero at the beginning, in [0, 1).
      fractions_of: "steps", or "compute": start and end are placed so that these fractions of the
        compute of the whole run lie before them, a step costing in proportion to its density (to
        within a step and an update interval).

    Returns:
      A schedule `step -> sparsity` with a method `is_mask_update(step)`.

    Raises:
      ValueError: for values out of range, or an end before the start.

    Example:
      >>> schedule = sparsity_schedule(0.8, total_steps=16, update_interval=2)
      >>> [round(float(schedule(c)), 3) for c in (0, 3, 4, 5, 6, 8, 12, 15)]
      [0.0, 0.0, 0.264, 0.264, 0.605, 0.758, 0.8, 0.8]
      >>> [c for c in range(16) if schedule.is_mask_update(c)]
      [4, 6, 8, 10, 12]

    References:
      Jin et al. 2025, https://arxiv.org/abs/2501.12486, which fixes 25 and 75 per cent of the
      compute; its code is not public. Polynomial and offset are those of google-research/jaxpruner
      (Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878).
    """
    for name, value in (("final_sparsity", final_sparsity), ("init_sparsity", init_sparsity)):
        check(name, value, 0.0, 1.0, open_high=True)
    check("start_fraction", start_fraction, 0.0, 1.0)
    check("end_fraction", end_fraction, start_fraction, 1.0)
    check("power", power, open_low=True)
    check_choice("fractions_of", fractions_of, ("steps", "compute"))
    total_steps = check_steps("total_steps", total_steps, 1)
    update_interval = check_steps("update_interval", update_interval, 1)
    if fractions_of == "compute":
        law: Any = (init_sparsity, final_sparsity, power)
        start_fraction, end_fraction = _steps_of_compute(
            start_fraction, end_fraction, *map(float, law)
        )
    start = round(float(start_fraction) * total_steps)
    end = round(float(end_fraction) * total_steps)
    return SparsitySchedule(init_sparsity, final_sparsity, start, end, update_interval, power)


pruning_schedule = schedule(PAPER, arxiv=ARXIV, name="pruning_schedule")(sparsity_schedule)


def _steps_of_compute(
    start: float, end: float, init_sparsity: float, final_sparsity: float, power: float
) -> tuple[float, float]:
    """Fractions of the steps at which the given fractions of the compute have been spent.

    The density is constant before and after the ramp and has a closed mean inside, so the
    compute of each of the three parts is its share of the steps times its mean density.
    """
    mean_sparsity = final_sparsity + (init_sparsity - final_sparsity) / (power + 1)
    before = start / (1 - init_sparsity)
    inside = (end - start) / (1 - mean_sparsity)
    after = (1 - end) / (1 - final_sparsity)
    steps = before + inside + after
    return before / steps, (before + inside) / steps


@schedule(PAPER, arxiv=ARXIV, kind="law")
def average_parameter_count(
    n_params: int,
    schedule: optax.Schedule,
    total_steps: int,
    unprunable: int = 0,
) -> float:
    r"""The mean number of parameters over a run, which scaling laws for sparse training use.

    .. math::
        \bar N = \frac{1}{T} \sum_{c < T} \bigl[N_{dense} + N\,(1 - s(c))\bigr]

    Args:
      n_params: number N of parameters that are pruned.
      schedule: `step -> sparsity`.
      total_steps: steps T of the run.
      unprunable: number of further parameters that stay dense.

    Returns:
      The mean over the training steps, not the count at the end.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> round(average_parameter_count(1000, sparsity_schedule(0.8, 100), 100), 1)
      496.0

    References:
      Jin et al. 2025, https://arxiv.org/abs/2501.12486.
    """
    check("n_params", n_params)
    check("unprunable", unprunable)
    total_steps = check_steps("total_steps", total_steps, 1)
    sparsity = np.asarray(schedule(np.arange(total_steps)), np.float64)
    return float(unprunable + n_params * (1 - sparsity).mean())

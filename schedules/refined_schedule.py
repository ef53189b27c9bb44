"""Schedules refined from the gradient norms of an earlier run."""

from bisect import bisect_left, insort
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from ..registry import schedule
from ..transforms.notation.checks import refusal
from ..transforms.notation.roots import relative_norm
from .arguments import as_table, check, check_choice, check_steps
from .steps import Numeric, as_float, elapsed

Array = np.ndarray[Any, np.dtype[np.float64]]
EXPONENTS = {"sgd": -2.0, "adam": -1.0}
# far below any norm that training can tell from zero, and far from overflow when its inverse
# square is multiplied by a sum of such squares
FLOOR = 1e-70


@schedule(
    "Defazio et al. 2023, When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    arxiv="2310.07831",
)
def refined_schedule(
    grad_norms: ArrayLike,
    weighting: str = "sgd",
    smoothing: float = 0.1,
    peak_value: float = 1.0,
) -> Array:
    r"""The schedule that the gradient norms of a finished run ask for.

    With the smoothed norms :math:`G_t`, :math:`\omega_t = G_t^{-2}` ("sgd") or
    :math:`G_t^{-1}` ("adam"),

    .. math::
        v_t = v_{peak}\, s_t / \max_t s_t, \qquad s_t = \omega_t \sum_{p > t} \omega_p

    Constant norms give linear decay; norms that rise at first give a warm-up, norms that fall
    at the end a fast final annealing. Runs on the host in float64, outside of jit.

    Args:
      grad_norms: one norm per step of a complete run, before clipping, over all parameters: the
        l2 norm for "sgd", the l1 norm for "adam". See `record_grad_norms`. Norms that are not
        finite are interpolated from their neighbours; zeros count as 1e-70 of the largest.
      weighting: "sgd" or "adam" (any method that divides by a second moment).
      smoothing: width of the running median as a fraction of the run, in [0, 1]; 0 for none.
      peak_value: the largest rate, which remains to be tuned.

    Returns:
      An array of T rates, the last of them 0; `as_schedule` makes a schedule of it.

    Raises:
      ValueError: for values out of range, fewer than two norms, or none that is finite.

    Example:
      >>> refined_schedule([1.0, 1.0, 1.0, 1.0, 1.0], smoothing=0.0)
      array([1.  , 0.75, 0.5 , 0.25, 0.  ])
      >>> refined_schedule([4.0, 2.0, 1.0, 1.0, 1.0], smoothing=0.0, peak_value=0.1).round(3)
      array([0.01 , 0.038, 0.1  , 0.05 , 0.   ])

    References:
      Defazio et al. 2023, https://arxiv.org/abs/2310.07831. Filter width and padding are those
      of the code, facebookresearch/adaptive_scheduling.
    """
    check_choice("weighting", weighting, EXPONENTS)
    check("smoothing", smoothing, 0.0, 1.0)
    check("peak_value", peak_value)
    norms = _finite(as_table("grad_norms", grad_norms).astype(np.float64))
    smooth = _running_median(norms, int(smoothing * norms.size) // 2)
    # the schedule does not depend on the scale of the norms; the powers' range does
    scaled = np.maximum(smooth / (smooth.max() or 1.0), FLOOR)
    weights = scaled ** EXPONENTS[weighting]
    tails = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    raw: Array = weights * tails
    rates: Array = peak_value * raw / raw.max()
    return rates


def _finite(norms: Array) -> Array:
    finite = np.isfinite(norms)
    if norms.ndim != 1 or norms.size < 2 or not finite.any() or np.any(norms[finite] < 0):
        raise refusal(
            "grad_norms must be a sequence of at least two norms, not negative and at least one "
            f"of them finite, got {norms!r}"
        )
    steps = np.arange(norms.size)
    return np.interp(steps, steps[finite], norms[finite])


def _running_median(values: Array, half: int) -> Array:
    """Medians of `2 half + 1` values, the end mirrored about its last element, the start held."""
    if half == 0:
        return values
    width = 2 * half + 1
    mirrored = np.pad(values, (0, 2 * width), mode="reflect")
    padded = np.pad(mirrored, (half, 0), mode="edge").tolist()
    # one value enters and one leaves a sorted window: a median of each would be quadratic
    window = sorted(padded[:width])
    medians = [window[half]]
    for entering, leaving in zip(padded[width : width + values.size - 1], padded, strict=False):
        del window[bisect_left(window, leaving)]
        insort(window, entering)
        medians.append(window[half])
    return np.array(medians)


@schedule(
    "Defazio et al. 2023, When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    arxiv="2310.07831",
    kind="combinator",
)
def as_schedule(values: ArrayLike, transition_steps: int | None = None) -> optax.Schedule:
    """A schedule that looks its value up in a table, the last one held after its end.

    Args:
      values: one value per step.
      transition_steps: length of the new run, if it differs from the table's: the table is
        stretched over it, first value on first and last on last step, linear in between.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for an empty table or a run below one step.

    Example:
      >>> schedule = as_schedule([1.0, 0.5, 0.0], transition_steps=5)
      >>> [round(float(schedule(c)), 3) for c in range(6)]
      [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    table = as_table("values", values)
    if table.size == 0:
        raise refusal(f"values must be a sequence of numbers, got {values!r}")
    last = table.size - 1
    length = table.size if transition_steps is None else transition_steps
    end = check_steps("transition_steps", length, 1) - 1

    def value(count: Numeric) -> jax.Array:
        entries = as_float(table)
        place = elapsed(count, 0, end) * (last / end if end else 0.0)
        below = jnp.floor(place).clip(0, last).astype(int)
        above = (below + 1).clip(0, last)
        share = place - below
        return entries[below] * (1 - share) + entries[above] * share

    return value


class RecordGradNormsState(NamedTuple):
    """State of `record_grad_norms`.

    Attributes:
      count: number of steps that have been seen.
      norms: the norms of the first steps, float; zeros beyond `count`.
    """

    count: jax.Array  # type: ignore[assignment]
    norms: jax.Array


@schedule(
    "Defazio et al. 2023, When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    arxiv="2310.07831",
    kind="measurement",
)
def record_grad_norms(total_steps: int, ord: int = 2) -> optax.GradientTransformation:
    """Passes the updates through and keeps their global norm at every step.

    To be put first in a chain: `refined_schedule` needs the norms before clipping.

    Args:
      total_steps: number of norms kept; later steps are not recorded.
      ord: 2 for the root of the sum of squares, 1 for the sum of absolute values.

    Returns:
      A gradient transformation whose state has the norms.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> recorder = record_grad_norms(total_steps=3)
      >>> state = recorder.init({"w": jnp.zeros(2)})
      >>> for scale in (1.0, 2.0):
      ...     updates, state = recorder.update({"w": scale * jnp.array([3.0, 4.0])}, state)
      >>> [float(norm) for norm in state.norms[: state.count]]
      [5.0, 10.0]

    References:
      Defazio et al. 2023, https://arxiv.org/abs/2310.07831.
    """
    capacity = check_steps("total_steps", total_steps, 1)
    check_choice("ord", ord, (1, 2))

    def init(params: optax.Params) -> RecordGradNormsState:
        del params
        return RecordGradNormsState(jnp.zeros((), jnp.int32), jnp.zeros(capacity, float))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RecordGradNormsState]:
        del params
        count: Any = optax.safe_increment(state.count)
        norms = state.norms.at[state.count].set(_global_norm(updates, ord), mode="drop")
        return updates, RecordGradNormsState(count, norms)

    return optax.GradientTransformation(init, update)


def _global_norm(tree: optax.Updates, ord: int) -> jax.Array:
    sizes = [as_float(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]
    if ord == 1:
        return sum(map(jnp.sum, sizes), as_float(0.0))
    unit, share = relative_norm(sizes)
    return unit * share

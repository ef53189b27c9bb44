"""Scores of training algorithms by the time that they take to a target, as AlgoPerf has them."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...registry import method
from ...transforms import FlowError, Size, checked
from ...transforms.notation.checks import refusal
from ...transforms.notation.domains import Interval, Static

Array = np.ndarray[Any, Any]
Selection = Literal["eval_index", "time"]
Multiple = Annotated[float, Static(), Interval(1.0, math.inf, low_open=True, high_open=True)]
"""How often a time goes into a longer one: a Python number above 1."""

CUTOFF = 4.0
"""A runtime beyond this multiple of the best one counts as never."""


@checked()
def time_to_target(
    times: ArrayLike,
    metric: ArrayLike,
    target: ArrayLike,
    minimize: bool | Sequence[bool] | np.ndarray = True,
    selection: Selection = "eval_index",
) -> Array:
    """The time in which each submission reaches the target of each workload.

    A trial reaches it at its first evaluation whose metric is at the target or beyond. A study's
    time is that of one of its trials, see `selection`; the submission's on the workload is the
    median over its studies, infinities among them.

    Args:
      times: of all evaluations, seconds since the start; axes (submission, workload, study, trial,
        evaluation). What is not finite has not taken place.
      metric: at the evaluations, same axes; what is not finite does not reach the target.
      target: a number, or one per workload.
      minimize: whether the metric is to fall to the target; a boolean, or one per workload.
      selection: which trial counts: "eval_index", the one that arrives by the smallest number of
        evaluations, the first of several, as in the benchmark's code; "time", the one that arrives
        soonest, as in its rules.

    Returns:
      Seconds, axes (submission, workload); infinite where most studies do not arrive.

    Raises:
      ValueError: for arrays of other shapes, a target of NaN, or an unknown selection.

    Example:
      >>> import numpy as np
      >>> from gradchain.optimizers import time_to_target
      >>> times = np.array([10.0, 20.0, 30.0]).reshape(1, 1, 1, 1, 3)
      >>> metric = np.array([0.9, 0.4, 0.2]).reshape(1, 1, 1, 1, 3)
      >>> time_to_target(times, metric, target=0.5)
      array([[20.]])

    References:
      Dahl et al. 2023, Benchmarking Neural Network Training Algorithms (arXiv 2306.07179), and
      `scoring/performance_profile.py` of mlcommons/algorithmic-efficiency.
    """
    times, metric = _numbers("times", times), _numbers("metric", metric)
    if times.ndim != 5 or times.shape != metric.shape or 0 in times.shape:
        raise FlowError(
            "time_to_target: times and metric must have the five axes (submission, workload, "
            f"study, trial, evaluation), got shapes {times.shape} and {metric.shape}"
        )
    goal = _per_workload("target", _numbers("target", target), times.shape[1])
    if np.isnan(goal).any():
        raise refusal(f"target={target!r} has a NaN, which no metric reaches")
    falls = _per_workload("minimize", np.asarray(minimize, bool), times.shape[1])
    good = np.where(falls, metric <= goal, metric >= goal)
    hit = good & np.isfinite(metric) & np.isfinite(times)
    arrives, first = hit.any(axis=-1), hit.argmax(axis=-1)
    at_first = np.take_along_axis(times, first[..., None], axis=-1)[..., 0]
    trial_times = np.where(arrives, at_first, np.inf)
    if selection == "eval_index":
        chosen = np.where(arrives, first, times.shape[-1]).argmin(axis=-1)
        study_times = np.take_along_axis(trial_times, chosen[..., None], axis=-1)[..., 0]
    else:
        study_times = trial_times.min(axis=-1)
    return np.asarray(np.median(study_times, axis=-1))


def _numbers(name: str, value: ArrayLike) -> Array:
    try:
        return np.asarray(value, np.float64)
    except (ValueError, TypeError) as error:
        raise refusal(f"{name}={value!r} must be numbers: {error}") from error


def _per_workload(name: str, values: Array, workloads: int) -> Array:
    if values.shape not in ((), (workloads,)):
        raise FlowError(
            f"time_to_target: {name} must be one value, or one for each of the {workloads} "
            f"workloads, got shape {values.shape}"
        )
    return values.reshape(-1, 1, 1, 1)


class Profile(NamedTuple):
    """What `performance_profile` gives.

    Attributes:
      tau: multiples of the best runtime, from 1 on.
      rho: share of the workloads within tau; axes (submission, tau).
    """

    tau: Array
    rho: Array


def _ratios(times: ArrayLike) -> Array:
    """Runtimes in multiples of the best one, infinite where the target is not reached."""
    found = _numbers("time_to_target", times)
    if found.ndim != 2 or 0 in found.shape or np.isnan(found).any() or (found < 0).any():
        raise FlowError(
            "time_to_target must be runtimes that are not negative, axes (submission, workload), "
            f"got {found!r}"
        )
    best = found.min(axis=0)
    reached = np.isfinite(found) & (found <= CUTOFF * best)
    # a best runtime of 0 has no multiples but itself
    safe = np.where(np.isfinite(best) & (best > 0), best, 1.0)
    ratios = np.where(found == best, 1.0, found / safe)
    return np.where(reached, ratios, np.inf)


def _max_tau(ratios: Array, max_tau: Multiple | None) -> float:
    if max_tau is None:
        return float(np.max(ratios, initial=1.0, where=np.isfinite(ratios)))
    return max_tau


@checked()
def performance_profile(
    time_to_target: ArrayLike, max_tau: Multiple | None = 4.0, num_points: Size = 100
) -> Profile:
    """On which share of the workloads a submission is within a multiple of the best runtime.

        r_{s,w} = t_{s,w} / min over s of t_{s,w},    rho_s(tau) = share of w with r_{s,w} <= tau

    A runtime beyond 4 times the best counts as never; a workload that nobody solves counts among
    all workloads.

    Args:
      time_to_target: runtimes, axes (submission, workload), see `time_to_target`.
      max_tau: the largest multiple; None: the largest finite ratio.
      num_points: of the grid, both ends included.

    Returns:
      The grid and the profiles.

    Raises:
      ValueError: for runtimes that are no such table, or a `max_tau` that is not above 1.

    Example:
      >>> from gradchain.optimizers import performance_profile
      >>> profile = performance_profile([[10.0, 30.0], [20.0, 15.0]], num_points=4)
      >>> profile.tau, profile.rho
      (array([1., 2., 3., 4.]), array([[0.5, 1. , 1. , 1. ],
             [0.5, 1. , 1. , 1. ]]))

    References:
      See `time_to_target`.
    """
    ratios = _ratios(time_to_target)
    tau = np.linspace(1.0, _max_tau(ratios, max_tau), num_points)
    return Profile(tau, (ratios[..., None] <= tau).mean(axis=1))


@checked()
def require_variants(base: ArrayLike, variant: ArrayLike) -> tuple[Array, Array]:
    """Runtimes where a workload counts only if its held-out variant is solved too, and vice versa.

    Args:
      base: runtimes, axes (submission, workload).
      variant: those on the variant of each workload, same axes.

    Returns:
      Both, infinite wherever one of them is.

    Example:
      >>> from gradchain.optimizers import require_variants
      >>> require_variants([[1.0, 2.0]], [[3.0, float("inf")]])
      (array([[ 1., inf]]), array([[ 3., inf]]))

    References:
      The older rules of the benchmark, see `time_to_target`.
    """
    first, second = np.asarray(base, np.float64), np.asarray(variant, np.float64)
    if first.shape != second.shape:
        raise FlowError(
            f"require_variants: base and variant differ in shape: {first.shape}, {second.shape}"
        )
    solved = np.isfinite(first) & np.isfinite(second)
    return np.where(solved, first, np.inf), np.where(solved, second, np.inf)


@method(
    "Dahl et al. 2023, Benchmarking Neural Network Training Algorithms",
    arxiv="2306.07179",
    kind="measurement",
    tags=("comparison",),
    required={"times": [[[[[1.0]]]]], "metric": [[[[[0.0]]]]], "target": 0.0},
)
@checked()
def algoperf_score(
    times: ArrayLike,
    metric: ArrayLike,
    target: ArrayLike,
    minimize: bool | Sequence[bool] | np.ndarray = True,
    selection: Selection = "eval_index",
    max_tau: Multiple | None = 4.0,
    num_points: Size | None = 100,
) -> Array:
    r"""The score of every submission: the area under its performance profile.

    .. math::
        B_s = \frac{1}{\tau_{max} - 1} \int_1^{\tau_{max}} \rho_s(\tau)\, d\tau

    by the trapezoid rule, as the benchmark computes it, or exactly. A submission that is added
    changes the scores of the others, whose runtimes are measured by the best.

    Args:
      times, metric, target, minimize, selection: see `time_to_target`.
      max_tau: the end of the integral; None: the largest finite ratio.
      num_points: of the trapezoid rule; None integrates the steps exactly.

    Returns:
      Numbers in [0, 1], one per submission.

    Raises:
      ValueError: see `time_to_target` and `performance_profile`.

    Example:
      >>> import numpy as np
      >>> from gradchain.optimizers import algoperf_score
      >>> times = np.array([[10.0, 20.0, 30.0], [15.0, 30.0, 45.0]]).reshape(2, 1, 1, 1, 3)
      >>> metric = np.array([[0.9, 0.4, 0.2], [0.9, 0.4, 0.2]]).reshape(2, 1, 1, 1, 3)
      >>> algoperf_score(times, metric, target=0.5, num_points=None).round(4)
      array([1.    , 0.8333])

    References:
      See `time_to_target`; profiles after Dolan & More 2002, Benchmarking Optimization Software
      with Performance Profiles.
    """
    runtimes = time_to_target(times, metric, target, minimize, selection)
    ratios = _ratios(runtimes)
    end = _max_tau(ratios, max_tau)
    if end == 1.0:  # all that arrive do so at once: the integral has shrunk to a point
        return np.asarray((ratios <= 1.0).mean(axis=1))
    if num_points is None:
        return np.asarray(np.clip(end - ratios, 0.0, None).mean(axis=1) / (end - 1))
    tau, rho = performance_profile(runtimes, end, num_points)
    return np.asarray(np.trapezoid(rho, tau, axis=1) / (end - 1))

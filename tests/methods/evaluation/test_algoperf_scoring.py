"""Scores by the time to a target: small tables, worked out by hand."""

import numpy as np
import pytest
from gradchain import optimizers as o

INF = float("inf")


def table(*rows):
    """(submission, 1 workload, study, trial, evaluation)."""
    return np.array(rows, float)[:, None]


def test_the_code_takes_the_first_evaluation_and_the_rules_the_shortest_time():
    times = table([[[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]]])
    metric = table([[[9.0, 1.0, 1.0], [9.0, 9.0, 1.0]]])
    assert o.time_to_target(times, metric, 5.0).item() == 20.0
    assert o.time_to_target(times, metric, 5.0, selection="time").item() == 3.0
    assert o.time_to_target(times, -metric, -5.0, minimize=False).item() == 20.0


def test_of_several_first_hits_the_first_trial_counts():
    times = table([[[10.0, 20.0], [1.0, 2.0]]])
    assert o.time_to_target(times, 0 * times, 0.0).item() == 10.0


def test_what_is_not_finite_never_hits_and_the_median_counts_infinities():
    times = table([[[1.0, 2.0, 3.0]], [[1.0, 2.0, INF]], [[1.0, 2.0, 3.0]]])
    metric = table([[[np.nan, -INF, 0.0]], [[9.0, 9.0, 0.0]], [[9.0, 9.0, 9.0]]])
    assert o.time_to_target(times[:, :, :1], metric[:, :, :1], 0.5).item() == 3.0
    assert o.time_to_target(times, metric, 0.5).item() == INF
    assert o.time_to_target(times[:, :, :2], metric[:, :, :2], 0.5).item() == INF


def test_targets_and_directions_of_each_workload():
    times = np.broadcast_to([1.0, 2.0, 3.0], (1, 2, 1, 1, 3))
    metric = np.array([[3.0, 2.0, 1.0], [0.1, 0.5, 0.9]]).reshape(times.shape)
    found = o.time_to_target(times, metric, [2.0, 0.9], minimize=[True, False])
    assert found.tolist() == [[2.0, 3.0]]
    with pytest.raises(ValueError, match="target must be one value, or one for each of the 2"):
        o.time_to_target(times, metric, [1.0, 2.0, 3.0])


def test_four_times_the_best_survives_and_no_workload_is_left_out():
    runtimes = [[1.0, 1.0, INF], [4.0, 4.001, INF]]
    rho = o.performance_profile(runtimes, num_points=2).rho
    np.testing.assert_allclose(rho, [[2 / 3, 2 / 3], [0.0, 1 / 3]])
    assert o.performance_profile([[0.0], [0.1]]).rho.tolist() == [[1.0] * 100, [0.0] * 100]


def test_the_integral_by_steps_and_by_trapezoids():
    times = table(*([[[t]]] for t in (1.0, 2.5, 4.0)))
    exact = o.algoperf_score(times, 0 * times, 0.0, num_points=None)
    np.testing.assert_allclose(exact, [1.0, 0.5, 0.0])
    by_grid = o.algoperf_score(times, 0 * times, 0.0, num_points=301)
    np.testing.assert_allclose(by_grid, exact, atol=0.5 / 300 + 1e-12)
    # without an end given it is the largest ratio that counts
    largest = o.algoperf_score(times[:2], 0 * times[:2], 0.0, max_tau=None, num_points=None)
    np.testing.assert_allclose(largest, [1.0, 0.0])
    alone = o.algoperf_score(times[:1], 0 * times[:1], 0.0, max_tau=None)
    assert alone.tolist() == [1.0]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: o.time_to_target([1.0], [1.0], 0.0), "five axes"),
        (
            lambda: o.time_to_target(table([[[1.0]]]), table([[[1.0]]]), 0.0, selection="best"),
            "bes",
        ),
        (lambda: o.algoperf_score([[[[[1.0]]]]], [[[[[1.0]]]]], np.nan), "target=nan has a NaN"),
        (lambda: o.performance_profile([[-1.0]]), "not negative"),
        (lambda: o.performance_profile([[1.0]], max_tau=1.0), r"max_tau=1\.0.*in \(1, inf\)"),
        (lambda: o.performance_profile([[1.0]], num_points=0), "num_points=0"),
        (lambda: o.require_variants([[1.0]], [1.0]), "differ in shape"),
    ],
)
def test_refusals(call, problem):
    with pytest.raises(ValueError, match=problem):
        call()

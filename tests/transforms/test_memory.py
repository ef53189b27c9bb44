"""Primitives that remember: differences, windows, buffers, first values, maxima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.optimizers.adam.priority_buffer import mean_of_buffer
from gradchain.transforms import (
    difference,
    ema,
    flow,
    interpolated_momentum,
    leaf_norm,
)
from gradchain.transforms.accumulate import (
    decayed_max,
    extrapolate,
    freeze_first,
    last_values,
)


def outputs(opt, signals):
    state = opt.init(signals[0])
    update = jax.jit(opt.update)
    found = []
    for signal in signals:
        out, state = update(signal, state)
        found.append(np.asarray(out))
    return np.stack(found), state


SIGNALS = [jnp.array(x) for x in ([1.0, -2.0], [4.0, 1.0], [-3.0, 0.5], [2.0, 2.0])]


def test_difference():
    plain = outputs(difference(), SIGNALS)[0]
    np.testing.assert_array_equal(plain, [[1, -2], [3, 3], [-7, -0.5], [5, 1.5]])
    np.testing.assert_array_equal(outputs(difference(from_first=True), SIGNALS)[0][0], [0, 0])
    np.testing.assert_array_equal(outputs(difference(from_first=True), SIGNALS)[0][1:], plain[1:])


def test_freeze_first_and_ema_from_first():
    np.testing.assert_array_equal(outputs(freeze_first(), SIGNALS)[0], [[1, -2]] * 4)
    averaged = outputs(ema(0.5, from_first=True), SIGNALS)[0]
    np.testing.assert_array_equal(averaged[:2], [[1, -2], [2.5, -0.5]])


def test_decayed_max():
    got = outputs(decayed_max(0.5, eps=0.25), SIGNALS)[0]
    np.testing.assert_array_equal(got, [[1.25, 2.25], [4.25, 1.25], [3.25, 0.75], [2.25, 2.25]])


def test_interpolated_momentum_gives_one_average_and_keeps_another():
    got, state = outputs(interpolated_momentum(0.5, 0.75), SIGNALS[:2])
    np.testing.assert_array_equal(got[1], 0.5 * 0.25 * SIGNALS[0] + 0.5 * SIGNALS[1])
    kept = 0.75 * 0.25 * SIGNALS[0] + 0.25 * SIGNALS[1]
    np.testing.assert_array_equal(jax.tree.leaves(state)[0], kept)


def test_last_values_have_the_oldest_first():
    _, state = outputs(flow(lambda g: (g >> last_values(3))[-1]), SIGNALS)
    np.testing.assert_array_equal(jax.tree.leaves(state)[0], jnp.stack(SIGNALS[1:]))


def test_mean_of_buffer_replaces_the_least():
    """Priorities 1, 5, 3, 4, ... with room for two, halved at each step."""
    signals = [jnp.array([x, 0.0]) for x in (1.0, 5.0, 3.0, 1.2, 0.0)]
    got = outputs(flow(lambda g: mean_of_buffer(g, leaf_norm(g), 2, 0.5)), signals)[0][:, 0]
    # Held after each step, with decayed priorities: 1 (.5); 1 (.25) and 5 (2.5); 3 for 1 since
    # 3 > .25 (1.5) and 5 (1.25); 1.2 < 1.25 is dropped.
    np.testing.assert_allclose(got, [0, 1, 3, 4, 4])


def test_ties_do_not_replace():
    signals = [jnp.array([1.0]), jnp.array([-1.0]), jnp.array([0.0])]
    got = outputs(flow(lambda g: mean_of_buffer(g, leaf_norm(g), 1, 1.0)), signals)[0]
    np.testing.assert_array_equal(got[:, 0], [0, 1, 1])


def test_extrapolation_finds_the_limit_of_a_linear_recursion():
    """Two modes need two differences more than the newest value; the guess is the fixed point."""
    limit = np.array([1.0, -2.0, 0.5])
    slow, fast = np.array([1.0, 1.0, -1.0]), np.array([2.0, -1.0, 0.3])
    signals = [jnp.asarray(limit + 0.9**i * slow + 0.5**i * fast, jnp.float32) for i in range(5)]
    got = outputs(extrapolate(history=3, reg=1e-10), signals)[0]
    np.testing.assert_array_equal(got[2], signals[2])
    assert np.linalg.norm(got[4] - limit) < 0.02 * np.linalg.norm(signals[4] - limit)


def test_extrapolation_of_equal_values_is_the_value():
    got = outputs(extrapolate(history=2), [SIGNALS[0]] * 5)[0]
    np.testing.assert_allclose(got, [SIGNALS[0]] * 5, rtol=1e-6)


@pytest.mark.parametrize("length", [0, -1])
def test_lengths_are_checked(length):
    with pytest.raises(ValueError, match="length"):
        last_values(length)

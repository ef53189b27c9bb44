"""Lookahead and schedule-free learning."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import (
    adam,
    lookahead,
    polynomial_average_update,
    schedule_free,
    schedule_free_adamw,
    schedule_free_radam,
    schedule_free_sgd,
    sgd,
)
from trajectories import assert_close, average, gradients, run, transcribed, tree
from wrapped_rules import B2, EPS, both


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
@pytest.mark.parametrize("inner", [sgd, optax.sgd])
def test_lookahead(pullback, inner):
    def rule(t, g, x, memory):
        slow = memory.get("slow", x)
        b = 0.9 * memory.get("b", 0) + g
        new = x - 0.1 * b
        if t % 3 == 0:
            new = slow = slow + 0.6 * (new - slow)
            if pullback == "reset":
                b = 0 * b
            if pullback == "pullback":
                b = memory["cached"] = 0.6 * b + 0.4 * memory.get("cached", 0)
        memory.update(slow=slow, b=b)
        return new

    params, grads = tree(), gradients(10)
    opt = lookahead(inner(0.1, 0.9), 3, 0.6, pullback)
    assert_close(run(opt, params, grads), transcribed(rule, params, grads))


def test_lookahead_pulls_momentum_back_by_a_schedule():
    """By 0.6 at the first synchronisation and 0.2 at the second, as written out."""
    weights = {2: 0.6, 4: 0.2}

    def rule(t, g, x, memory):
        slow = memory.get("slow", x)
        b = 0.9 * memory.get("b", 0) + g
        new = x - 0.1 * b
        if t in weights:
            new = slow = slow + weights[t] * (new - slow)
            b = memory["cached"] = weights[t] * b + (1 - weights[t]) * memory.get("cached", 0)
        memory.update(slow=slow, b=b)
        return new

    params, grads = tree(), gradients(5)
    inner = sgd(0.1, momentum=0.9)
    weight = lambda step: jnp.where(step < 2, 0.6, 0.2)  # noqa: E731
    optimizer = lookahead(inner, 2, weight, "pullback")
    assert_close(run(optimizer, params, grads), transcribed(rule, params, grads))


def test_lookahead_pulls_back_the_first_moment_alone():
    opt = lookahead(adam(0.1), 2, 0.5, "reset")
    params, grads = tree(), gradients(2)
    look = lambda state, params: {  # noqa: E731
        name: optax.tree.get(state, name) for name in ("mu", "nu")
    }
    for _, after in [run(opt, params, grads, look)]:
        assert not any(leaf.any() for leaf in jax.tree.leaves(after["mu"]))
        assert all(leaf.any() for leaf in jax.tree.leaves(after["nu"]))


def test_lookahead_without_momentum_to_pull_back():
    with pytest.raises(ValueError, match="no momentum"):
        lookahead(sgd(0.1), pullback_momentum="reset").init(jnp.zeros(1))


def test_lookahead_evaluates_at_the_slow_weights():
    params, grads = tree(), gradients(4)
    seen = run(lookahead(sgd(0.1), 3), params, grads, both)
    assert_close([slow for _, slow in seen[:2]], [params] * 2)
    assert_close([seen[2][1]], [seen[2][0]])
    assert not np.allclose(seen[3][0]["w"], seen[3][1]["w"])


def schedule_free_rule(direction, rate_of, b1, r, power, memory_of):
    """(y, x) by the three sequences, x and z stored."""

    def rule(t, g, y, memory):
        z, x = memory.get("z", y), memory.get("x", y)
        rate = rate_of(t)
        memory["max"] = max(memory.get("max", 0.0), rate)
        weight = t**r * memory["max"] ** power
        memory["sum"] = memory.get("sum", 0.0) + weight
        c = weight / memory["sum"] if memory["sum"] else 0.0
        z = z - rate * direction(t, g, y, z, memory)
        x = (1 - c) * x + c * z
        memory.update(z=z, x=x)
        memory_of.append(x)
        return b1 * x + (1 - b1) * z

    return rule


def check_schedule_free(opt, direction, rate_of, b1, r, power, steps=8):
    params, grads = tree(0, w=(4, 3)), gradients(steps, w=(4, 3))
    averages = []
    rule = schedule_free_rule(direction, rate_of, b1, r, power, averages)
    wanted = transcribed(rule, params, grads)
    seen = run(opt, params, grads, both)
    assert_close([y for y, _ in seen], wanted)
    assert_close([x for _, x in seen], [{"w": x} for x in averages], rtol=1e-8)


@pytest.mark.parametrize("b1", [0.9, 0.0])
@pytest.mark.parametrize(("r", "power"), [(0.0, 2.0), (1.5, 0.5)])
def test_schedule_free_sgd(b1, r, power):
    check_schedule_free(
        schedule_free_sgd(0.2, b1, 0.1, 4, r, power),
        lambda t, g, y, z, memory: g + 0.1 * y,
        lambda t: 0.2 * min(1, t / 4),
        b1,
        r,
        power,
    )


@pytest.mark.parametrize(("momentum", "at_z"), itertools.product([0.0, 0.6], [False, True]))
def test_schedule_free_adamw(momentum, at_z):
    def direction(t, g, y, z, memory):
        v = average(memory, "v", B2, g * g)
        m = average(memory, "m", momentum, g) / (1 - momentum**t)
        return m / (np.sqrt(v / (1 - B2**t)) + EPS) + 0.1 * (z if at_z else y)

    opt = schedule_free_adamw(0.2, 0.8, B2, EPS, 0.1, 3, 0.5, 1.0, momentum, at_z)
    check_schedule_free(opt, direction, lambda t: 0.2 * min(1, t / 3), 0.8, 0.5, 1.0)


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("power", [2.0, 0.0])
def test_schedule_free_radam(silent, power):
    def length(t):
        return 2 / (1 - B2) - 1 - 2 * t * B2**t / (1 - B2**t)

    def rate(t):
        n, n_inf = length(t), 2 / (1 - B2) - 1
        if n <= 4:
            return 0.0 if silent else 0.2
        return 0.2 * np.sqrt((n - 4) * (n - 2) * n_inf / ((n_inf - 4) * (n_inf - 2) * n))

    def direction(t, g, y, z, memory):
        v = average(memory, "v", B2, g * g)
        u = g / (np.sqrt(v / (1 - B2**t)) + EPS) if length(t) > 4 else g
        return u + 0.1 * y

    opt = schedule_free_radam(0.2, 0.8, B2, EPS, 0.1, 0.0, power, silent)
    check_schedule_free(opt, direction, rate, 0.8, 0.0, power)


def test_schedule_free_wrapper_is_optax_contrib():
    def rate(count):
        return 0.1 * jnp.minimum(1.0, (count + 1) / 3)

    params, grads = tree(), gradients(7)
    inner = optax.adamw(0.1, b1=0.0, weight_decay=0.1)
    theirs = optax.contrib.schedule_free(inner, lambda count: rate(count - 1), b1=0.9)
    ours = schedule_free(inner, rate)
    assert_close(run(ours, params, grads), run(theirs, params, grads), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 8.0])
def test_the_average_by_hand_is_that_of_the_wrapper(gamma):
    """In float32 for bfloat16 weights; what is no float is as it is now."""
    with jax.enable_x64(True):
        path = [np.random.default_rng(t).normal(size=3) for t in range(6)]
        start = {"w": np.zeros(3), "seen": np.int32(0)}
        found = start
        for t, y in enumerate(path, start=1):
            found = polynomial_average_update(found, {"w": y, "seen": np.int32(t)}, t, gamma)
        weights = np.cumprod([1.0] + [(t + gamma) / t for t in range(1, 6)])
        wanted = np.average(path, axis=0, weights=weights)
        np.testing.assert_allclose(found["w"], wanted, rtol=1e-12)
        assert found["seen"] == 6
    low = polynomial_average_update(jnp.zeros(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16), 1)
    assert low.dtype == jnp.float32

"""Runs of the family's methods against their rules, written down in NumPy."""

import jax
import numpy as np
import pytest
from gradchain import optimizers
from gradchain.schedules import stage_decay
from momentum_rules import RATES, follows, projected, run, schedule, trees

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("nesterov", "project_buffer", "axis"),
    [(False, True, 0), (False, False, -1), (True, True, -1)],
)
def test_sgdp(nesterov, project_buffer, axis):
    mu, dampening, eps, decay, ratio, delta = 0.7, 0.2, 1e-8, 0.2, 0.3, 1.5

    def rule(theta, g, past, t):
        b = past["b"] = mu * past.get("b", 0) + (1 - dampening) * g
        u, r = projected(theta, g, g + mu * b if nesterov else b, delta, eps, ratio, axis)
        if project_buffer and not nesterov:
            past["b"] = u
        rate = RATES[t - 1]
        return theta * (1 - rate * decay * r / (1 - mu)) - rate * u

    opt = optimizers.sgdp(
        schedule, mu, dampening, decay, nesterov, eps, delta, ratio, axis, project_buffer
    )
    follows(opt, rule)


@pytest.mark.parametrize(
    ("granularity", "nesterov", "axis"),
    [("tensor", True, 0), ("filter", False, 0), ("filter", True, -1), ("global", False, 0)],
)
def test_adaptive_braking(granularity, nesterov, axis):
    mu, rho, decay, steps = 0.8, 1.3, 0.1, 8
    params, grads = trees(steps)
    opt = optimizers.adaptive_braking(schedule, mu, rho, nesterov, decay, granularity, axis)
    path = run(opt, params, grads)
    x, v = dict(params), {n: 0 * p for n, p in params.items()}

    def total(tree_a, tree_b):
        return sum(np.sum(tree_a[n] * tree_b[n]) for n in tree_a)

    def sums(a, b):
        if granularity == "filter" and a.ndim > 1:
            axes = tuple(i for i in range(a.ndim) if i != axis % a.ndim)
            return np.sum(a * b, axis=axes, keepdims=True)
        return np.sum(a * b)

    for t in range(1, steps + 1):
        g = {n: grads[t - 1][n] + decay * x[n] for n in x}
        fixed = dict(v)
        for n in x:
            dot = total if granularity == "global" else (lambda p, q, n=n: sums(p[n], q[n]))
            norms = np.sqrt(dot(g, g)) * np.sqrt(dot(fixed, fixed))
            braked = (1 - rho * dot(g, fixed) / np.maximum(norms, 1e-8)) * g[n]
            v[n] = mu * v[n] + braked
            x[n] = x[n] - RATES[t - 1] * (braked + mu * v[n] if nesterov else v[n])
            np.testing.assert_allclose(path[t - 1][n], x[n], rtol=1e-10, atol=1e-13)


def test_heavy_ball_step_decay_keeps_the_velocity_when_the_rate_drops():
    def rule(theta, g, past, t):
        rate = 0.1 * 3.0 ** -min((t - 1) // 4, 2)
        d = past["d"] = 0.7 * past.get("d", 0) - rate * g
        return theta + d

    opt = optimizers.heavy_ball_step_decay(0.1, 0.7, total_steps=12, num_stages=3, factor=3.0)
    follows(opt, rule)


def test_heavy_ball_step_decay_derives_its_defaults_from_the_condition_number():
    derived = optimizers.heavy_ball_step_decay(0.1, total_steps=12, condition_number=16.0)
    named = optimizers.stochastic_heavy_ball(stage_decay(0.1, 12, 6), 0.75**2)
    params, grads = trees(12)
    for a, b in zip(run(derived, params, grads), run(named, params, grads), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), a, b)


@pytest.mark.parametrize("arguments", [{}, {"num_stages": 13}, {"condition_number": 0.5}])
def test_heavy_ball_step_decay_refuses_what_gives_no_stage(arguments):
    with pytest.raises(ValueError, match=r"num_stages|condition_number"):
        optimizers.heavy_ball_step_decay(0.1, total_steps=12, **arguments)

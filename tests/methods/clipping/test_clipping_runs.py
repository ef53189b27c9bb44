"""Runs of the family's methods against their rules, written down in NumPy."""

import jax
import numpy as np
import pytest
from gradchain import optimizers
from momentum_rules import RATES, follows, schedule, trees

pytestmark = pytest.mark.usefixtures("x64")

# --- SPAM and Stable-SPAM ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "interval", "correction"), [(0.0, 4, True), (0.7, 0, False), (0.7, 4, True)]
)
def test_spam(threshold, interval, correction):
    b1, b2, eps, decay, warmup, wait = 0.8, 0.95, 1e-3, 0.2, 3, 2

    def rule(theta, g, past, t):
        q = past.get("q", warmup + 1)
        damping = 0.99 * (1 + np.cos(np.pi * q / (warmup + 1))) / 2 if q < warmup else 0
        m, v = past.get("m", 0 * g), past.get("v", 0 * g)
        if interval and t % interval == 0:
            m, v = 0 * g, 0 * g
        since = t % interval if interval else t
        if threshold and since >= wait:
            g = np.where(g**2 > threshold * v, np.sign(g) * np.sqrt(threshold * v), g)
        m = past["m"] = b1 * m + (1 - b1) * g
        v = past["v"] = b2 * v + (1 - b2) * g**2
        past["q"] = 0 if interval and (t + 1) % interval == 0 else q + 1
        scale = np.sqrt(1 - b2**t) / (1 - b1**t) if correction else 1
        rate = RATES[t - 1]
        theta = theta - rate * scale * (1 - damping) * m / (np.sqrt(v) + eps)
        return theta * (1 - rate * decay)

    opt = optimizers.spam(
        schedule,
        b1,
        b2,
        eps,
        decay,
        None,
        threshold,
        interval,
        warmup,
        wait,
        correction,
    )
    follows(opt, rule)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.55, 1.0])
@pytest.mark.parametrize(("scope", "scale"), [("global", 1.0), ("leaf", 0.5)])
def test_coordinate_clipping(fraction, scope, scale):
    _, (g,) = trees(1)
    opt = optimizers.coordinate_clipping(fraction, scale, scope)
    traced = jax.jit(lambda f, g: optimizers.coordinate_clipping(f, scale, scope).update(g, ())[0])
    got, _ = opt.update(g, opt.init(g))
    again = traced(fraction, g)

    def threshold(entries):
        falling = np.append(np.sort(np.abs(entries))[::-1], 0)
        return np.inf if fraction == 0 else scale * falling[int(entries.size * fraction)]

    everything = threshold(np.concatenate([x.ravel() for x in g.values()]))
    for name, x in g.items():
        tau = everything if scope == "global" else threshold(x.ravel())
        np.testing.assert_array_equal(got[name], np.clip(x, -tau, tau))
        np.testing.assert_array_equal(again[name], got[name])


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_clip_by_global_norm(max_norm, eps):
    _, (g,) = trees(1)
    norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
    opt = optimizers.clip_by_global_norm(max_norm, eps)
    got, _ = opt.update(g, opt.init(g))
    for name, x in g.items():
        np.testing.assert_allclose(got[name], x * min(1, max_norm / (norm + eps)), rtol=1e-12)

"""Runs of the family's methods against their rules, written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import optimizers
from gradchain.schedules import ranger21_schedule
from momentum_rules import RATES, WITH_CONVOLUTION, follows, projected, run, schedule, trees

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("nesterov", "delta", "axis"),
    [(False, 1.5, 0), (True, 20.0, -1), (True, 0.3, 0), (False, 1.5, -1)],
)
def test_adamp(nesterov, delta, axis):
    b1, b2, eps, decay, ratio = 0.8, 0.95, 1e-3, 0.2, 0.3

    def rule(theta, g, past, t):
        m = past["m"] = b1 * past.get("m", 0) + (1 - b1) * g
        v = past["v"] = b2 * past.get("v", 0) + (1 - b2) * g**2
        u = (b1 * m + (1 - b1) * g if nesterov else m) / (np.sqrt(v) / np.sqrt(1 - b2**t) + eps)
        u, r = projected(theta, g, u, delta, eps, ratio, axis)
        rate = RATES[t - 1]
        return theta * (1 - rate * decay * r) - rate / (1 - b1**t) * u

    opt = optimizers.adamp(schedule, b1, b2, eps, decay, delta, ratio, nesterov, axis)
    follows(opt, rule)


def test_masked_leaves_of_adamp_do_not_decay():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    opt = optimizers.adamp(0.1, weight_decay=0.5, delta=0.0, mask={"a": True, "b": False})
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(opt.update)(zero, opt.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.05)
    np.testing.assert_array_equal(updates["b"], 0)


# --- Ranger21 ------------------------------------------------------------------------------------


def unit(x, axis):
    if x.ndim <= 1:
        return np.sqrt(np.sum(x**2))
    if x.ndim <= 3:
        along = 1 if axis == 0 else x.ndim - 2
    else:
        along = tuple(range(1, x.ndim)) if axis == 0 else tuple(range(x.ndim - 1))
    return np.sqrt(np.sum(x**2, axis=along, keepdims=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channel_axis": -1, "max_variance": True, "variance_offset": 1.0, "normalize": False},
        {"agc_clip": None, "softplus_beta": None, "sync_period": None, "noise_beta": 0.7},
        {"softplus_beta": 3.0, "pnm_beta": 0.6, "slow_step_size": 0.3, "sync_period": 3},
    ],
    ids=["defaults", "flax", "off", "settings"],
)
def test_ranger21(options):
    total, peak, b1, b2, eps, steps = 20, 0.1, 0.8, 0.9, 1e-6, 12
    decay, factor, agc_eps = 0.1, 0.2, 0.02
    clip = options.get("agc_clip", 0.05)
    beta = options.get("softplus_beta", 50.0)
    pnm, nb = options.get("pnm_beta", 1.0), options.get("noise_beta") or b2
    axis = options.get("channel_axis", -1)
    period = options.get("sync_period", 5)
    alpha = options.get("slow_step_size", 0.5)
    params, grads = trees(steps, WITH_CONVOLUTION)
    opt = optimizers.ranger21(
        peak,
        total,
        b1,
        b2,
        eps,
        weight_decay=decay,
        normloss_factor=factor,
        agc_eps=agc_eps,
        warmup_steps=4,
        warmdown_start=0.4,
        end_value=0.01,
        **{"agc_clip": clip, **options},
    )
    path = run(opt, params, grads)
    rate_of = ranger21_schedule(peak, total, b2, 4, warmdown_start=0.4, end_value=0.01)

    def prepared(g):
        if g.ndim > 1:
            axes = tuple(range(1, g.ndim)) if axis == 0 else tuple(range(g.ndim - 1))
            g = g - g.mean(axis=axes, keepdims=True)
        if options.get("normalize", True) and g.size > 2:
            g = g / (g.std(ddof=1) + 1e-8)
        return g

    x = dict(params)
    slow = dict(params)
    v = {n: 0 * p for n, p in x.items()}
    top, a, b = dict(v), dict(v), dict(v)
    size = sum(p.size for p in x.values())
    for t in range(1, steps + 1):
        rate = float(rate_of(t - 1))
        g = {}
        for n, raw in grads[t - 1].items():
            if clip is not None:
                allowed, norm = clip * np.maximum(unit(x[n], axis), agc_eps), unit(raw, axis)
                raw = np.where(norm > allowed, raw * allowed / np.maximum(norm, 1e-6), raw)
            g[n] = prepared(raw)
            v[n] = b2 * v[n] + (1 - b2) * g[n] ** 2
        offset = options.get("variance_offset", 0.0)
        typical = np.sqrt((offset + sum(np.sum(y) for y in v.values()) / (1 - b2**t)) / size)
        for n in x:
            theta = x[n] * (1 - decay * rate / typical)
            theta = theta * (1 - 2 * rate * factor * (1 - 1 / (unit(theta, axis) + eps)))
            again = prepared(g[n])
            cur, other = (a, b) if t % 2 else (b, a)
            cur[n] = b1**2 * cur[n] + (1 - b1**2) * again
            p = ((1 + pnm) * cur[n] - pnm * other[n]) / np.sqrt((1 + nb) ** 2 + nb**2)
            top[n] = np.maximum(top[n], v[n])
            root = np.sqrt((top if options.get("max_variance") else v)[n]) / np.sqrt(1 - b2**t)
            root = root + eps
            if beta is not None:
                soft = np.log1p(np.exp(np.minimum(beta * root, 50))) / beta
                root = np.where(beta * root > 20, root, soft)
            x[n] = theta - rate / (1 - b1**t) * p / root
            if period and t % period == 0:
                x[n] = slow[n] = alpha * x[n] + (1 - alpha) * slow[n]
            np.testing.assert_allclose(path[t - 1][n], x[n], rtol=1e-9, atol=1e-12)


def test_ranger21_at_zero_weights_and_gradients_stays():
    params = {"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    opt = optimizers.ranger21(0.1, total_steps=10)
    updates, _ = jax.jit(opt.update)(params, opt.init(params), params)
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, 0), updates)

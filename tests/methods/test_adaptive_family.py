"""Adaptive methods against plain numpy transcriptions of their rules, at settings off the defaults.

A transcription is a function of one leaf's start and gradients, or of whole trees where leaves are
coupled, that returns the params after every step.
"""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from trajectories import (
    MASK,
    STEPS,
    assert_close,
    by_leaf,
    draws,
    falling,
    rate_at,
    run,
    single,
)

# --- transcriptions ------------------------------------------------------------------------------


def adamax(x, gs, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    m, u, out = 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, abs(g) + eps)
        x = x - rate_at(learning_rate, t) * (m / ((1 - b1**t) * u) + weight_decay * x)
        out.append(x)
    return out


def amsgrad(
    x,
    gs,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
    max_of="corrected",
):
    m, v, top, out = 0 * x, 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        c1 = 1 - b1**t if bias_correction_mu else 1
        c2 = 1 - b2**t if bias_correction_nu else 1
        if max_of == "corrected":
            top = np.maximum(top, v / c2)
            d = top
        else:
            top = np.maximum(top, v)
            d = top / c2
        x = x - rate_at(learning_rate, t) * (m / c1) / (np.sqrt(d + eps_root) + eps)
        out.append(x)
    return out


def adabound(
    x,
    gs,
    learning_rate=1e-3,
    final_learning_rate=0.1,
    gamma=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
    maximum=False,
    base_learning_rate=None,
):
    m, v, top, out = 0 * x, 0 * x, 0 * x, []
    base = base_learning_rate or rate_at(learning_rate, 1)
    for t, g in enumerate(gs, 1):
        rate = rate_at(learning_rate, t)
        if not decoupled:
            g = g + weight_decay * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        top = np.maximum(top, v)
        r = rate * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(top if maximum else v) + eps)
        f = final_learning_rate * rate / base
        r = np.clip(r, f * (1 - 1 / (gamma * t + 1)), f * (1 + 1 / (gamma * t)))
        x = x - r * m - (weight_decay * x if decoupled else 0)
        out.append(x)
    return out


def amsbound(x, gs, **settings):
    return adabound(x, gs, maximum=True, **settings)


def diffgrad(x, gs, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    m, v, past, out = 0 * x, 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        g = g + weight_decay * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        xi = 1 / (1 + np.exp(-abs(past - g)))
        past = g
        size = rate_at(learning_rate, t) * np.sqrt(1 - b2**t) / (1 - b1**t)
        x = x - size * xi * m / (np.sqrt(v) + eps)
        out.append(x)
    return out


def adan(params, grads, learning_rate, b1, b2, b3, eps, weight_decay, max_grad_norm, no_prox, mask):
    zero = {k: 0 * x for k, x in params.items()}
    m, d, n, past, out = dict(zero), dict(zero), dict(zero), None, []
    for t, g in enumerate(grads, 1):
        rate = rate_at(learning_rate, t)
        if max_grad_norm > 0:
            norm = np.sqrt(sum(np.sum(v**2) for v in g.values()))
            g = {k: v * min(1, max_grad_norm / (norm + eps)) for k, v in g.items()}
        past = g if past is None else past
        params = dict(params)
        for k, x in params.items():
            y = g[k] - past[k]
            m[k] = b1 * m[k] + (1 - b1) * g[k]
            d[k] = b2 * d[k] + (1 - b2) * y
            n[k] = b3 * n[k] + (1 - b3) * (g[k] + b2 * y) ** 2
            root = np.sqrt(n[k]) / np.sqrt(1 - b3**t) + eps
            u = (m[k] / (1 - b1**t) + b2 * d[k] / (1 - b2**t)) / root
            w = weight_decay if mask[k] else 0.0
            prox = (x - rate * u) / (1 + rate * w)
            params[k] = x * (1 - rate * w) - rate * u if no_prox else prox
        past = g
        out.append(params)
    return out


def ademamix(
    x,
    gs,
    learning_rate=1e-3,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    alpha=5.0,
    b3_warmup=None,
    alpha_warmup=None,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=0.0,
    count_offset=0,
):
    def half_life(b):
        return np.log(0.5) / np.log(b) - 1 if b > 0 else -1.0

    m1, m2, v, out = 0 * x, 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        i = t - 1 + count_offset
        a = alpha(i) if callable(alpha) else alpha
        if alpha_warmup and not callable(alpha):
            a = alpha * min(i / alpha_warmup, 1)
        b = b3(i) if callable(b3) else b3
        if b3_warmup and i < b3_warmup and not callable(b3):
            mixed = (1 - i / b3_warmup) * half_life(b1) + i / b3_warmup * half_life(b3)
            b = 0.5 ** (1 / (mixed + 1)) if mixed > -1 else 0.0
        m1, m2 = b1 * m1 + (1 - b1) * g, b * m2 + (1 - b) * g
        v = b2 * v + (1 - b2) * g**2
        u = (m1 / (1 - b1**t) + a * m2) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - rate_at(learning_rate, t) * (u + weight_decay * x)
        out.append(x)
    return out


def fadam(
    x,
    gs,
    learning_rate=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    power=0.5,
    clip_threshold=1.0,
    weight_decay=0.1,
):
    def clipped(z):
        return z * clip_threshold / max(1, np.sqrt(np.mean(z**2)))

    m, f, out = 0 * x, np.ones_like(x), []
    for t, g in enumerate(gs, 1):
        bt = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        f = bt * f + (1 - bt) * g**2
        d = f**power + eps * max(1, np.sqrt(np.mean(g**2)))
        m = b1 * m + (1 - b1) * clipped(g / d)
        x = x - rate_at(learning_rate, t) * (m + weight_decay * clipped(x / d))
        out.append(x)
    return out


def novograd(
    x,
    gs,
    learning_rate,
    b1=0.95,
    b2=0.98,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=0.0,
    grad_averaging=False,
    average_first=False,
):
    v, m, out = 0.0, 0 * x, []
    for t, g in enumerate(gs, 1):
        n = np.sum(g**2)
        v = n if t == 1 else b2 * v + (1 - b2) * n
        d = g / (np.sqrt(v + eps_root) + eps) + weight_decay * x
        if grad_averaging and (t > 1 or average_first):
            d = (1 - b1) * d
        m = d if t == 1 else b1 * m + d
        x = x - rate_at(learning_rate, t) * m
        out.append(x)
    return out


def lamb(x, gs, learning_rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0):
    m, v, out = 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps) + weight_decay * x
        phi, rho = np.sqrt(np.sum(x**2)), np.sqrt(np.sum(u**2))
        x = x - rate_at(learning_rate, t) * (phi / rho if phi > 0 and rho > 0 else 1) * u
        out.append(x)
    return out


def gravity(x, gs, learning_rate=0.1, alpha=0.01, beta=0.9, count_start=0, start=None):
    v, out = alpha / rate_at(learning_rate, 1) * (0 if start is None else start), []
    for t, g in enumerate(gs, 1):
        n = t - 1 + count_start
        b = (beta * n + 1) / (n + 2)
        z = g / (1 + (g / (1 / np.max(abs(g)))) ** 2)
        v = b * v + (1 - b) * z
        x = x - rate_at(learning_rate, t) * v
        out.append(x)
    return out


def innaprop(x, gs, learning_rate=1e-3, alpha=0.1, beta=0.9, b2=0.999, eps=1e-8, weight_decay=0.01):
    v, psi, out = 0 * x, (1 - alpha * beta) * x, []
    for t, g in enumerate(gs, 1):
        eta = rate_at(learning_rate, t)
        y = x * (1 - eta * weight_decay)
        v = b2 * v + (1 - b2) * g**2
        d = np.sqrt(v) / np.sqrt(1 - b2**t) + eps
        psi = psi * (1 - eta / beta) + eta * (1 / beta - alpha) * y
        x = y * (1 + eta * (1 - alpha * beta) / (beta - eta)) - eta / (beta - eta) * psi
        x = x - eta * beta * g / d
        out.append(x)
    return out


def upgd(
    params,
    grads,
    noise,
    learning_rate=1e-5,
    weight_decay=0.0,
    beta_utility=0.0,
    sigma=1.0,
    scope="global",
    protect=True,
    adaptive=False,
    b1=0.9,
    b2=0.999,
    eps=1e-5,
    trainable=None,
):
    zero = {k: 0 * x for k, x in params.items()}
    utility, m, v, out = dict(zero), dict(zero), dict(zero), []
    used = [k for k in params if trainable is None or trainable[k]]
    for t, (g, z) in enumerate(zip(grads, noise, strict=True), 1):
        rate = rate_at(learning_rate, t)
        for k in used:
            utility[k] = beta_utility * utility[k] - (1 - beta_utility) * g[k] * params[k]
        largest = max(np.max(utility[k]) for k in used)
        params = dict(params)
        for k in used:
            fair = utility[k] / (1 - beta_utility**t)
            if scope == "global":
                scaled = fair / largest
            else:
                axis = -1 if fair.ndim else None
                norm = np.sqrt(np.sum(fair**2, axis=axis, keepdims=True))
                scaled = fair / np.maximum(norm, 1e-12)
            s = 1 / (1 + np.exp(-scaled))
            n = sigma * z[k]
            if adaptive:
                m[k] = b1 * m[k] + (1 - b1) * g[k]
                v[k] = b2 * v[k] + (1 - b2) * g[k] ** 2
                adam = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
                d = 2 * (adam + n) * (1 - s)
            else:
                d = (g[k] + n) * (1 - s) if protect else g[k] + n * (1 - s)
            params[k] = params[k] * (1 - rate * weight_decay) - rate * d
        out.append(params)
    return out


def critical_momenta(
    params, grads, learning_rate, b1, b2, eps, decay, capacity, weight_decay, amsgrad, synced, mask
):
    zero = {k: 0 * x for k, x in params.items()}
    m, v, top, out = dict(zero), dict(zero), dict(zero), []
    buffers = {k: ([], []) for k in params}
    for t, g in enumerate(grads, 1):
        rate = rate_at(learning_rate, t)
        norms = {k: np.sqrt(np.sum(x**2)) for k, x in g.items()}
        params = dict(params)
        for k in params:
            if mask[k]:
                params[k] = params[k] * (1 - rate * weight_decay)
            entries, keys = buffers[k]
            if t > 1:
                m[k] = b1 * m[k] + (1 - b1) * g[k]
            u = m[k] + (np.mean(entries, axis=0) if entries else 0)
            entry, priority = (g if t == 1 else m)[k], sum(norms.values()) if synced else norms[k]
            if len(entries) < capacity:
                entries.append(entry)
                keys.append(priority)
            elif priority > min(keys):
                slot = int(np.argmin(keys))
                entries[slot], keys[slot] = entry, priority
            keys[:] = [decay * key for key in keys]
            v[k] = b2 * v[k] + (1 - b2) * u**2
            top[k] = np.maximum(top[k], v[k])
            root = np.sqrt(top[k] if amsgrad else v[k]) / np.sqrt(1 - b2**t)
            params[k] = params[k] - rate / (1 - b1**t) * u / (root + eps)
        out.append(params)
    return out


def optimistic_amsgrad(
    x,
    gs,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    predictor="extrapolation",
    history=5,
    reg=1e-3,
    bias_correction=True,
    weight_decay=0.0,
    predicted=None,
):
    auxiliary, th, v, top, guess, seen, out = x, 0 * x, 0 * x, 0 * x, 0 * x, [], []
    for t, g in enumerate(gs, 1):
        g = g + weight_decay * x
        seen.append(g)
        if predictor == "given":
            guess = ahead = predicted[t - 1]
        elif predictor == "extrapolation" and len(seen) > history:
            known = [np.ravel(y) for y in seen[-history - 1 :]]
            rows = np.array([b - a for a, b in itertools.pairwise(known)])
            z = np.linalg.solve(rows @ rows.T + reg * np.eye(history), np.ones(history))
            ahead = np.reshape((z / z.sum()) @ np.array(known[1:]), np.shape(g))
        else:
            ahead = g
        v = b2 * v + (1 - b2) * (g - guess) ** 2
        top = np.maximum(top, v)
        d = np.sqrt(top) + eps
        h = b1 * th + (1 - b1) * ahead
        th = b1 * th + (1 - b1) * g
        a = rate_at(learning_rate, t)
        if bias_correction:
            a = a * np.sqrt(1 - b2**t) / (1 - b1**t)
        auxiliary = auxiliary - a * th / d
        x = auxiliary - a * h / d
        guess = ahead
        out.append(x)
    return out


def multi_adam(
    x,
    gs,
    learning_rate=1e-3,
    b1=0.99,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    group_weights=None,
    amsgrad=False,
    agg_b1=None,
    agg_b2=None,
):
    m, v, top, a, b, out = 0 * gs[0], 0 * gs[0], 0 * gs[0], 0 * x, 0 * x, []
    count = len(gs[0])
    weights = group_weights or [1 / count] * count
    for t, g in enumerate(gs, 1):
        g = g + weight_decay * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        top = np.maximum(top, v)
        den = np.sqrt(top if amsgrad else v) / np.sqrt(1 - b2**t) + eps
        u = sum(w * one for w, one in zip(weights, m / den, strict=True))
        if agg_b1 is not None:
            a, b = agg_b1 * a + (1 - agg_b1) * u, agg_b2 * b + (1 - agg_b2) * u**2
            u = (a / (1 - agg_b1**t)) / (np.sqrt(b) / np.sqrt(1 - agg_b2**t) + eps)
        x = x - rate_at(learning_rate, t) / (1 - b1**t) * u
        out.append(x)
    return out


# --- comparisons ---------------------------------------------------------------------------------

LEAFWISE = [
    (adamax, {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3, "mask": MASK}),
    (amsgrad, {"b1": 0.8, "b2": 0.7, "eps": 1e-3, "eps_root": 1e-2, "max_of": "raw"}),
    (amsgrad, {"b2": 0.6, "bias_correction_mu": False}),
    (amsgrad, {"b2": 0.6, "bias_correction_nu": False, "max_of": "raw"}),
    (
        adabound,
        {"final_learning_rate": 0.05, "gamma": 0.3, "b1": 0.8, "b2": 0.7, "eps": 1e-2}
        | {"weight_decay": 0.2, "mask": MASK},
    ),
    (adabound, {"gamma": 0.5, "weight_decay": 0.05, "decoupled": True, "mask": MASK}),
    (adabound, {"gamma": 0.5, "base_learning_rate": 0.4}),
    (amsbound, {"gamma": 0.4, "b2": 0.6, "weight_decay": 0.05, "decoupled": True}),
    (diffgrad, {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3}),
    (ademamix, {"b1": 0.8, "b2": 0.7, "b3": 0.95, "alpha": 3.0, "b3_warmup": 6, "alpha_warmup": 4}),
    (
        ademamix,
        {"b1": 0.0, "b3_warmup": 6, "alpha_warmup": 20, "count_offset": 1, "eps_root": 1e-2}
        | {"eps": 1e-3, "weight_decay": 0.3, "mask": MASK},
    ),
    (
        ademamix,
        {"alpha": lambda i: 1.0 + 0.5 * i, "b3": lambda i: 0.9 + 0.01 * i, "alpha_warmup": 3},
    ),
    (
        fadam,
        {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "power": 0.4, "clip_threshold": 0.5}
        | {"weight_decay": 0.3, "mask": MASK},
    ),
    (fadam, {"clip_threshold": 2.0, "weight_decay": 0.0}),
    (
        novograd,
        {"b1": 0.8, "b2": 0.6, "eps": 1e-2, "eps_root": 1e-2, "weight_decay": 0.2}
        | {"grad_averaging": True, "mask": MASK},
    ),
    (novograd, {"grad_averaging": True, "average_first": True}),
    (
        lamb,
        {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "eps_root": 1e-2, "weight_decay": 0.3, "mask": MASK},
    ),
    (gravity, {"alpha": 0.0, "beta": 0.7, "count_start": 1}),
    (
        innaprop,
        {"alpha": 2.0, "beta": 2.0, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3, "mask": MASK},
    ),
    (
        optimistic_amsgrad,
        {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "history": 2, "reg": 0.3, "weight_decay": 0.2},
    ),
    (optimistic_amsgrad, {"predictor": "last", "b2": 0.8, "bias_correction": False}),
]


@pytest.mark.parametrize(
    ("rule", "settings"), LEAFWISE, ids=[f"{r.__name__}-{i}" for i, (r, _) in enumerate(LEAFWISE)]
)
def test_follows_the_transcription_of_its_rule(rule, settings):
    params, grads = draws(scale=2.0)
    opt = getattr(optimizers, rule.__name__)(falling, **settings)
    assert_close(
        run(opt, params, grads), by_leaf(rule, params, grads, learning_rate=falling, **settings)
    )


@pytest.mark.parametrize(("max_grad_norm", "no_prox"), [(0.0, False), (1.5, True), (1.5, False)])
def test_adan(max_grad_norm, no_prox):
    settings = {"b1": 0.8, "b2": 0.7, "b3": 0.6, "eps": 1e-2, "weight_decay": 0.3, "mask": MASK}
    settings |= {"max_grad_norm": max_grad_norm, "no_prox": no_prox}
    params, grads = draws()
    got = run(optimizers.adan(falling, **settings), params, grads)
    assert_close(got, adan(params, grads, falling, **settings))


def test_adan_clips_by_an_injected_norm():
    """The norm may be traced, and 0 then still means no clipping."""
    params, grads = single(draws(scale=5.0))

    def first(max_grad_norm):
        opt = optimizers.adan(0.1, eps=1.0, max_grad_norm=max_grad_norm)
        return opt.update(grads[0], opt.init(params), params)[0]["w"]

    traced = jax.jit(first)
    np.testing.assert_allclose(traced(0.0), first(0.0), rtol=1e-6)
    np.testing.assert_allclose(traced(0.5), first(0.5), rtol=1e-5)
    assert abs(traced(0.5)).max() < abs(traced(0.0)).max()


def test_ademamix_switches_continuously_to_its_final_values():
    params, grads = draws()
    settings = {"b3": 0.9, "alpha": 4.0}
    ramped = run(
        optimizers.ademamix(0.1, alpha_warmup=1, b3_warmup=1, count_offset=1, **settings),
        *(params, grads),
    )
    plain = run(optimizers.ademamix(0.1, **settings), params, grads)
    assert_close(plain, ramped, rtol=1e-12)


def test_gravity_starts_at_the_given_normals():
    params, grads = draws()
    normals = draws(seed=5)[0]
    opt = optimizers.gravity(
        falling, alpha=0.3, beta=0.8, key=1, sampler=lambda key, count, params: normals
    )
    wanted = {
        k: gravity(params[k], [g[k] for g in grads], falling, 0.3, 0.8, start=normals[k])
        for k in params
    }
    assert_close(
        run(opt, params, grads), [{k: w[t] for k, w in wanted.items()} for t in range(STEPS)]
    )


def test_gravity_starts_at_random():
    params = {"w": jnp.zeros((50, 40)), "b": jnp.zeros((50, 40))}
    state = optimizers.gravity(0.5, alpha=0.1, key=3).init(params)
    v = np.asarray(optax.tree.get(state, "velocity")["w"])
    assert abs(v.std() - 0.2) < 0.01
    assert not np.array_equal(v, optax.tree.get(state, "velocity")["b"])
    typed = optimizers.gravity(0.5, alpha=0.1, key=jax.random.key(3)).init(params)
    np.testing.assert_array_equal(optax.tree.get(typed, "velocity")["w"], v)


UPGD = [
    {"beta_utility": 0.0, "weight_decay": 0.1},
    {"beta_utility": 0.8, "scope": "local", "protect": False},
    {"beta_utility": 0.8, "trainable": MASK, "weight_decay": 0.2},
    {"beta_utility": 0.6, "adaptive": True, "b1": 0.8, "b2": 0.7, "eps": 1e-2, "scope": "local"},
]


@pytest.mark.parametrize("settings", UPGD, ids=range(len(UPGD)))
def test_upgd(settings):
    params, grads = draws()
    noise = draws(seed=3)[1]
    given = jax.tree.map(lambda *x: np.stack(x), *noise)
    settings = {"sigma": 0.3, **settings}

    def sampler(key, count, params):
        return jax.tree.map(lambda x: jnp.asarray(x)[count], given)

    got = run(optimizers.upgd(falling, sampler=sampler, **settings), params, grads)
    assert_close(got, upgd(params, grads, noise, falling, **settings))


@pytest.mark.parametrize(
    ("synced", "amsgrad", "capacity"), [(True, False, 3), (False, True, 2), (True, True, 1)]
)
def test_adam_critical_momenta(synced, amsgrad, capacity):
    settings = {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "decay": 0.6, "weight_decay": 0.2, "mask": MASK}
    settings |= {"synced": synced, "amsgrad": amsgrad, "capacity": capacity}
    params, grads = draws()
    got = run(optimizers.adam_critical_momenta(falling, **settings), params, grads)
    assert_close(got, critical_momenta(params, grads, falling, **settings))


def test_optimistic_amsgrad_with_given_predictions():
    params, grads = draws()
    predicted = draws(seed=7)[1]
    settings = {"predictor": "given", "b2": 0.8, "weight_decay": 0.1}
    opt = optimizers.optimistic_amsgrad(falling, **settings)
    assert "predicted_grads" in opt.needs
    fed = jax.tree.map(lambda *x: np.stack(x), *predicted)
    wanted = {
        k: optimistic_amsgrad(
            params[k],
            [g[k] for g in grads],
            falling,
            predicted=[p[k] for p in predicted],
            **settings,
        )
        for k in params
    }
    got = run(opt, params, grads, predicted_grads=fed)
    assert_close(got, [{k: w[t] for k, w in wanted.items()} for t in range(STEPS)])


def test_a_perfect_guess_leaves_the_second_moment_alone():
    """With constant gradients the last one predicts the next, and v stays at its first value."""
    params, grads = single(draws())
    opt = optimizers.optimistic_amsgrad(0.1, predictor="last")
    state = opt.init(params)
    update = jax.jit(opt.update)
    _, state = update(grads[0], state, params)
    first = optax.tree.get(state, "nu_max")
    for _ in range(3):
        _, state = update(grads[0], state, params)
    np.testing.assert_array_equal(optax.tree.get(state, "nu_max")["w"], first["w"])


MULTI = [
    {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.2},
    {"group_weights": [0.5, 0.2, 0.3], "amsgrad": True, "b2": 0.6},
    {"b1": 0.8, "agg_b1": 0.7, "agg_b2": 0.6, "group_weights": [0.7, 0.4]},
]


@pytest.mark.parametrize("settings", MULTI, ids=range(len(MULTI)))
def test_multi_adam(settings):
    groups = len(settings.get("group_weights", (0, 0)))
    params, grads = draws(lead=(groups,))
    wanted = by_leaf(multi_adam, params, grads, learning_rate=falling, **settings)
    assert_close(run(optimizers.multi_adam(falling, **settings), params, grads), wanted)


def test_multi_adam_does_not_see_the_scale_of_a_loss():
    params, grads = draws(lead=(2,))
    scaled = jax.tree.map(lambda g: g * np.array([1.0, 1e6]).reshape(2, *[1] * (g.ndim - 1)), grads)
    opt = optimizers.multi_adam(0.1, eps=0.0)
    assert_close(
        run(opt, params, scaled), by_leaf(multi_adam, params, grads, learning_rate=0.1, eps=0.0)
    )


def test_multi_adam_of_one_group_is_adam():
    params, grads = draws()
    got = run(optimizers.multi_adam(0.1, 0.9, 0.99, num_groups=1), params, grads)
    wanted = run(optax.adam(0.1, 0.9, 0.99), params, grads)
    assert_close(got, wanted)


def test_multi_adam_refuses_another_number_of_groups():
    params, grads = single(draws(lead=(3,)))
    opt = optimizers.multi_adam(0.1)
    with pytest.raises(ValueError, match="stacked over 2"):
        opt.update(grads[0], opt.init(params), params)
    with pytest.raises(ValueError, match="group_weights"):
        optimizers.multi_adam(0.1, group_weights=[0.5, 0.5], num_groups=3)
    with pytest.raises(ValueError, match="agg_b2"):
        optimizers.multi_adam(0.1, agg_b1=0.5)


# --- reductions and traps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optimizers.adamax(0.1, weight_decay=0.1), optax.adamaxw(0.1, weight_decay=0.1)),
        (optimizers.amsgrad(0.1, b2=0.9), optax.amsgrad(0.1, b2=0.9)),
        (optimizers.novograd(0.1, 0.9, 0.25, 1e-6), optax.novograd(0.1, 0.9, 0.25, 1e-6)),
        (
            optimizers.lamb(0.1, weight_decay=0.1, mask=MASK),
            optax.lamb(0.1, weight_decay=0.1, mask=MASK),
        ),
        (
            optimizers.innaprop(0.1, 0.5, 2.0, eps=0.0, weight_decay=0.0),
            optax.chain(optax.scale_by_rms(0.999, 0.0, bias_correction=True), optax.scale(-0.2)),
        ),
        (
            optimizers.lion_k(0.1, "l1", weight_decay=0.1),
            optimizers.lion(0.1, weight_decay=0.1),
        ),
    ],
    ids=["adamaxw", "amsgrad", "novograd", "lamb", "innaprop_is_rmsprop", "lion"],
)
def test_equals(ours, theirs):
    """Optax's methods, where it has them, and the special cases that the mathematics gives."""
    params, grads = draws()
    wanted = run(theirs, params, grads)
    assert_close(run(ours, params, grads), wanted)


def test_adabound_needs_a_positive_first_rate():
    with pytest.raises(ValueError, match="base"):
        optimizers.adabound(optax.linear_schedule(0.0, 0.1, 10))
    optimizers.adabound(optax.linear_schedule(0.0, 0.1, 10), base_learning_rate=0.1)


def test_adabound_ends_as_sgd():
    """Late bounds leave one rate for all coordinates."""
    opt = optimizers.adabound(0.01, 0.1, gamma=1e9, b1=0.0)
    params = {"w": jnp.array([1.0, -2.0, 30.0])}
    updates, _ = opt.update(params, opt.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * params["w"], rtol=1e-5)


def test_innaprop_refuses_a_rate_that_is_not_below_beta():
    with pytest.raises(ValueError, match="learning_rate"):
        optimizers.innaprop(1.0, beta=0.9)


def test_fadam_without_decay_needs_no_params():
    assert "params" not in optimizers.fadam(0.1, weight_decay=0.0).needs
    assert "params" in optimizers.fadam(0.1).needs


def test_upgd_without_any_utility_moves_by_half_a_gradient():
    params = {"w": jnp.zeros(3)}
    opt = optimizers.upgd(1.0, sigma=0.0)
    updates, _ = opt.update({"w": jnp.ones(3)}, opt.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.5)


def test_every_argument_of_a_direction_is_that_of_its_optimizer():
    """`scale_by_<name>` takes what `<name>` takes, with the same defaults."""
    pairs = {"adamax": "adamax", "amsgrad": "amsgrad", "adan": "adan", "ademamix": "ademamix"}
    pairs |= {"fadam": "fadam", "novograd": "novograd", "upgd": "upgd", "mup_adam": "mup_adam"}
    pairs |= {"adam_critical_momenta": "critical_momenta", "multi_adam": "multi_adam"}
    pairs |= {"diffgrad": "diffgrad", "innaprop": "innaprop", "adabound": "adabound"}
    for name, direction in pairs.items():
        whole = inspect.signature(getattr(optimizers, name)).parameters
        part = inspect.signature(getattr(optimizers, f"scale_by_{direction}")).parameters
        for argument, parameter in part.items():
            if argument != "amsbound":
                assert parameter.default == whole[argument].default, (name, argument)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {"eps": np.float64(-1.0)}),
        ("adam", {"b1": np.ones(2)}),
        ("grams", {"learning_rate": jnp.ones(3)}),
        ("adamp", {"channel_axis": 0.5}),
        ("ranger21", {"total_steps": 9, "variance_offset": -1.0}),
        ("ranger21", {"total_steps": 9, "end_value": "small"}),
        ("adafactor", {"min_scale": -1.0}),
        ("adafactor", {"decay_offset": 0.5}),
        ("mup_adam", {"base_shapes": {"w": (1,)}, "fan_in_axis": "last"}),
        ("multi_adam", {"group_weights": 0.5}),
        ("spam", {"reset_interval": np.inf}),
    ],
)
def test_refuses_by_name_what_is_no_number_or_out_of_range(name, settings):
    *_, argument = settings
    with pytest.raises(ValueError, match=argument):
        getattr(optimizers, name)(**{"learning_rate": 0.1, **settings})

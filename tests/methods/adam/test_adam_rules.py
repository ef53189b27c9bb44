"""Methods of the family against their rules in NumPy, at settings off the defaults."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from trajectories import (
    MASK,
    assert_close,
    draws,
    falling,
    rate_at,
    run,
    single,
)


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


@pytest.mark.parametrize(
    ("synced", "amsgrad", "capacity"), [(True, False, 3), (False, True, 2), (True, True, 1)]
)
def test_adam_critical_momenta(synced, amsgrad, capacity):
    settings = {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "decay": 0.6, "weight_decay": 0.2, "mask": MASK}
    settings |= {"synced": synced, "amsgrad": amsgrad, "capacity": capacity}
    params, grads = draws()
    got = run(optimizers.adam_critical_momenta(falling, **settings), params, grads)
    assert_close(got, critical_momenta(params, grads, falling, **settings))


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

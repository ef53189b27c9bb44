"""Methods of the family against their rules in NumPy, at settings off the defaults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import optimizers
from trajectories import (
    MASK,
    assert_close,
    draws,
    falling,
    rate_at,
    run,
)


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


def test_upgd_without_any_utility_moves_by_half_a_gradient():
    params = {"w": jnp.zeros(3)}
    opt = optimizers.upgd(1.0, sigma=0.0)
    updates, _ = opt.update({"w": jnp.ones(3)}, opt.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.5)

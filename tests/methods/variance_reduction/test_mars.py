"""What wrappers of several families have in common."""

import jax
import numpy as np
import pytest
from gradchain.optimizers import (
    mars_adamw,
    mars_lion,
    mars_shampoo,
)
from trajectories import assert_close, average, gradients, run, transcribed, tree
from wrapped_rules import B1, B2, EPS

MARS_SHAPES = {"b": (3,), "k": (2, 2, 2), "w": (5, 3)}


def corrected(g, memory, gamma, previous):
    p = memory.get("p", 0 * g) if previous is None else previous
    memory["p"] = g
    c = g + gamma * B1 / (1 - B1) * (g - p)
    norm = np.sqrt(np.sum(c * c))
    return c / norm if norm > 1 else c


def adam_of(t, g, memory, b1, b2, amsgrad=False):
    m, v = average(memory, "m", b1, g), average(memory, "v", b2, g * g)
    if amsgrad:
        v = memory["x"] = np.maximum(memory.get("x", 0), v)
    return m / ((np.sqrt(v) / np.sqrt(1 - b2**t) + EPS) * (1 - b1**t))


def quintic(m, steps):
    x = m / (np.linalg.norm(m) + EPS)
    x = x.T if m.shape[0] > m.shape[1] else x
    for _ in range(steps):
        a = x @ x.T
        b = a @ x
        x = 3.4445 * x - 4.7750 * b + 2.0315 * a @ b
    return x.T if m.shape[0] > m.shape[1] else x


@pytest.mark.parametrize("kind", ["adamw", "adamw_amsgrad", "lion", "shampoo"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("optimize_1d", [False, True])
def test_mars(kind, exact, optimize_1d):
    gamma = 0.3
    previous = gradients(6, seed=7, **MARS_SHAPES)

    def rate(count):
        return 0.2 / (1 + count)

    def rule(name):
        def of(t, g, x, memory):
            lr = 0.2 / t
            if x.ndim != 2 and not optimize_1d:
                u = adam_of(t, g, memory, 0.6, 0.8)
                return x - lr * 0.05 / 0.2 * (u + 0.4 * x)
            c = corrected(g, memory, gamma, previous[t - 1][name] if exact else None)
            if kind.startswith("adamw") or (kind == "shampoo" and x.ndim != 2):
                u = adam_of(t, c, memory, B1, B2, kind == "adamw_amsgrad")
            else:
                m = average(memory, "m", B1, c)
                factor = np.sqrt(max(1, x.shape[0] / x.shape[1])) if x.ndim == 2 else 1
                u = np.sign(m) if kind == "lion" else factor * quintic(m / (1 - B1), 3)
            return x - lr * (u + 0.1 * x)

        return of

    common = {
        "b1": B1,
        "eps": EPS,
        "weight_decay": 0.1,
        "gamma": gamma,
        "exact": exact,
        "optimize_1d": optimize_1d,
        "learning_rate_1d": 0.05,
        "b1_1d": 0.6,
        "b2_1d": 0.8,
        "weight_decay_1d": 0.4,
    }
    opt = {
        "adamw": lambda: mars_adamw(rate, b2=B2, **common),
        "adamw_amsgrad": lambda: mars_adamw(rate, b2=B2, amsgrad=True, **common),
        "lion": lambda: mars_lion(rate, **common),
        "shampoo": lambda: mars_shampoo(rate, b2=B2, ns_steps=3, **common),
    }[kind]()
    params, grads = tree(0, **MARS_SHAPES), gradients(6, **MARS_SHAPES)
    grads = [{k: v * (0.1 if t % 2 else 1) for k, v in g.items()} for t, g in enumerate(grads)]
    parts = [transcribed(rule(k), {k: params[k]}, grads) for k in MARS_SHAPES]
    wanted = [{k: v for part in at for k, v in part.items()} for at in zip(*parts, strict=True)]
    extras = {"previous_grads": jax.tree.map(lambda *x: np.stack(x), *previous)} if exact else {}
    assert_close(run(opt, params, grads, **extras), wanted)

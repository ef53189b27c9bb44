"""Runs of the family's methods against their rules, written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from momentum_rules import RATES, SHAPES, schedule, trees

pytestmark = pytest.mark.usefixtures("x64")

# --- Polyak steps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("mag", {"c": 0.3, "max_learning_rate": 1e-9}),
        ("smag", {"c": 0.7, "max_learning_rate": 0.02, "weight_decay": 0.3}),
        ("smag", {"max_learning_rate": schedule, "f_min": 3.5, "clamp": True}),
        ("hb", {"max_learning_rate": None, "smoothness": 20.0, "weight_decay": 0.3}),
        ("shb", {"c": 0.7, "max_learning_rate": 0.05, "f_min": 3.5}),
    ],
)
def test_polyak_momentum(variant, options):
    mu, decay = 0.7, options.get("weight_decay", 0.0)
    cap, c = options.get("max_learning_rate", 0.1), options.get("c", 1.0)
    values = np.array([5.0, 3.0, 4.0, 2.0, 6.0, 3.6])
    params, grads = trees(6)
    opt = optimizers.polyak_momentum(variant, mu, **options)
    state, ours = opt.init(params), jax.tree.map(jnp.asarray, params)
    update = jax.jit(opt.update)

    def flat(tree):
        return np.concatenate([np.ravel(tree[name]) for name in SHAPES])

    x, d, last = flat(params), 0.0, 0.0
    for t, value in enumerate(values, 1):
        updates, state = update(grads[t - 1], state, ours, value=value)
        ours = optax.apply_updates(ours, updates)
        g, gap = flat(grads[t - 1]), value - options.get("f_min", 0.0)
        if variant.endswith("mag"):
            d = mu * d + g
            rate = gap / ((1.0 if variant == "mag" else c) * np.sum(d * d))
        else:
            rate = (gap / c + mu * np.sum(g * last)) / np.sum(g * g)
            rate += 1 / (2 * options["smoothness"]) if "smoothness" in options else 0
        if options.get("clamp"):
            rate = max(rate, 0)
        if cap is not None and variant != "mag":
            rate = min(rate, RATES[t - 1] if callable(cap) else cap)
        step = -rate * d if variant.endswith("mag") else mu * last - rate * g
        last = step - rate * decay * x
        x = x + last
        np.testing.assert_allclose(flat(ours), x, rtol=1e-10, atol=1e-13)


def test_a_zero_gradient_makes_no_polyak_step():
    zero = jnp.zeros(3)
    for variant, smoothness in (("smag", None), ("hb", None), ("hb", 3.0)):
        opt = optimizers.polyak_momentum(variant, weight_decay=0.5, smoothness=smoothness)
        updates, _ = opt.update(zero, opt.init(zero), zero + 1, value=1.0)
        np.testing.assert_array_equal(updates, 0)

"""Runs of the family's methods against their rules, written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import eval_params, optimizers
from momentum_rules import RATES, follows, schedule, trees

pytestmark = pytest.mark.usefixtures("x64")

# --- momentum ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("momentum", "mu"), [(0.8, 0.0), (0.8, 2.0), (1.0, 2.0)])
def test_random_scaling_scales_the_step_and_not_the_buffer(momentum, mu):
    draws = np.random.default_rng(1).exponential(size=12)

    def rule(theta, g, past, t):
        rate = RATES[t - 1]
        d = past["d"] = momentum / (1 + rate * mu) * (past.get("d", 0) - rate * g)
        return theta + draws[t - 1] * d

    def sampler(key, count, params):
        return jnp.asarray(draws)[count]

    follows(optimizers.sgdm_random_scaling(schedule, momentum, mu, sampler=sampler), rule)


def test_random_scaling_draws_one_exponential_scalar_per_step():
    opt = optimizers.random_scaling(optax.identity(), key=3)
    ones = {"a": jnp.ones(2), "b": jnp.ones(())}

    def step(state, _):
        updates, state = opt.update(ones, state)
        return state, updates

    _, drawn = jax.lax.scan(step, opt.init(ones), length=4000)
    np.testing.assert_array_equal(drawn["a"][:, 0], drawn["b"])
    np.testing.assert_array_equal(drawn["a"][:, 0], drawn["a"][:, 1])
    assert abs(float(drawn["b"].mean()) - 1) < 0.08
    assert abs(float(drawn["b"].std()) - 1) < 0.12
    assert float(drawn["b"].min()) >= 0


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [False, True])
def test_perpgrad(rescale):
    params, grads = trees(1)
    opt = optimizers.perpgrad(rescale)
    got, _ = opt.update(grads[0], opt.init(params), params)
    for name, g in grads[0].items():
        w = params[name]
        h = g - np.sum(w * g) / (np.sum(w * w) + 1e-30) * w
        if rescale:
            h = h * np.sqrt(np.sum(g * g)) / (np.sqrt(np.sum(h * h)) + 1e-30)
        want = g if name == "s" else h
        np.testing.assert_allclose(got[name], want, rtol=1e-9)


# --- weight prediction ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("s", [0, 2])
def test_xgrad_steps_from_the_true_weights(base, s):
    mu, dampening, b1, b2, eps, decay, steps = 0.8, 0.3, 0.7, 0.9, 1e-3, 0.2, 9
    opt = optimizers.xgrad(schedule, base, s, mu, dampening, b1, b2, eps, decay)
    params, _ = trees(1)
    rng = np.random.default_rng(2)
    bends = {name: rng.uniform(0.5, 2.0, size=x.shape) for name, x in params.items()}

    def gradient(x, bend):
        return bend * x + 0.3 * x**3

    ours, state = jax.tree.map(jnp.asarray, params), opt.init(params)
    update = jax.jit(opt.update)
    x, hat = dict(params), dict(params)
    z, m, v = ({n: 0 * p for n, p in params.items()} for _ in range(3))
    for t in range(1, steps + 1):
        g = {n: gradient(ours[n], bends[n]) for n in ours}
        updates, state = update(g, state, ours)
        ours = optax.apply_updates(ours, updates)
        true = eval_params(state, ours)
        rate, coming = RATES[t - 1], RATES[t]
        for n in x:
            g = gradient(hat[n], bends[n])
            if base == "sgd":
                z[n] = mu * z[n] + (1 - dampening) * (g + decay * x[n])
                d = z[n]
            else:
                m[n] = b1 * m[n] + (1 - b1) * g
                v[n] = b2 * v[n] + (1 - b2) * g**2
                d = m[n] / (1 - b1**t) / (np.sqrt(v[n]) / np.sqrt(1 - b2**t) + eps)
            x[n] = (x[n] * (1 - rate * decay) if base == "adamw" else x[n]) - rate * d
            hat[n] = x[n] - s * coming * d
            np.testing.assert_allclose(true[n], x[n], rtol=1e-10)
            np.testing.assert_allclose(ours[n], hat[n], rtol=1e-10)


def test_weight_prediction_shows_the_inner_optimizer_the_true_weights():
    params, _ = trees(1)
    inner = optax.chain(optax.trace(0.5), optax.add_decayed_weights(0.3), optax.scale(-0.1))
    opt = optimizers.weight_prediction(inner, prediction_steps=3)
    state, inner_state = opt.init(params), inner.init(params)
    x, hat = params, params
    for _ in range(4):
        g = jax.tree.map(lambda p: p + 0.5, hat)
        updates, state = opt.update(g, state, hat)
        step, inner_state = inner.update(g, inner_state, x)
        hat = optax.apply_updates(hat, updates)
        x = jax.tree.map(jnp.add, x, step)
        want = jax.tree.map(lambda a, u: a + 3 * u, x, step)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), hat, want)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), eval_params(state, hat), x
        )

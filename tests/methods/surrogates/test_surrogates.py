"""Surrogates: what a step must be by the mathematics, how often it evaluates, what it refuses."""

import functools
import re

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o

pytestmark = pytest.mark.usefixtures("x64")

X = {"w": np.array([[1.0, -2.0], [0.5, 3.0]]), "b": np.array([0.3, -0.1])}


def target(p):
    return sum(jnp.sum(jnp.cosh(leaf)) for leaf in jax.tree.leaves(p))


def proxy(p):
    return sum(jnp.sum(0.7 * leaf**2) for leaf in jax.tree.leaves(p))


def step_of(opt, params=X, **extra):
    @jax.jit
    def step(params):
        return opt.update(jax.grad(target)(params), opt.init(params), params, **extra)[0]

    return step(params)


def close(found, expected, rtol=1e-9):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), found, expected)


def test_many_inner_steps_reach_the_proximal_point():
    eta = 0.6
    found = step_of(o.proxy_prox(eta, 200, 0.2), proxy_fn=proxy)
    g = {n: np.sinh(x) for n, x in X.items()}
    close(found, {n: -eta * g[n] / (1 + 1.4 * eta) for n in X})  # h'' = 1.4


def test_any_optimizer_goes_down_the_corrected_proxy():
    """A search needs the loss of the inner problem, and the value at its start."""
    for inner in (o.armijo(1.0), o.momo(1.0), optax.adam(0.05)):
        found = step_of(o.proxy_prox(0.6, 60, inner=inner), proxy_fn=proxy, value=target(X))
        g = {n: np.sinh(x) for n, x in X.items()}

        def phi(d, g=g):
            return sum(
                np.sum(0.7 * (X[n] + d[n]) ** 2 + (g[n] - 1.4 * X[n]) * d[n] + d[n] ** 2 / 1.2)
                for n in X
            )

        assert phi(found) < phi({n: 0 * x for n, x in X.items()}) - 1.0


def test_a_scheduled_rate_follows_the_outer_steps():
    rates = np.array([0.6, 0.1])
    opt = o.proxy_prox(lambda count: jnp.asarray(rates)[count], 100, 0.05)
    state, params = opt.init(X), X
    step = jax.jit(functools.partial(opt.update, proxy_fn=proxy))
    for rate in rates:
        grads = jax.grad(target)(params)
        found, state = step(grads, state, params)
        close(found, {n: -rate * g / (1 + 1.4 * rate) for n, g in grads.items()}, rtol=1e-3)


def test_sso_reaches_the_minimum_in_the_space_of_outputs():
    """For a model that is linear and onto, z - G / (2 eta)."""
    a = np.random.default_rng(0).normal(size=(3, 5))
    x, y = np.ones(5), np.array([0.5, -1.0, 2.0])
    loss = lambda z: jnp.mean(jnp.cosh(z - y))  # noqa: E731
    opt = o.sso(0.8, optax.sgd(0.15), inner_steps=3000)
    extra = {"outputs_fn": lambda p: a @ p, "outputs_loss_fn": loss}
    u = jax.jit(lambda x: opt.update(x, opt.init(x), x, **extra)[0])(x)
    big = jax.grad(loss)(jnp.asarray(a @ x))
    np.testing.assert_allclose(a @ u, -big / 1.6, rtol=1e-6)


def test_the_schedules_of_eta():
    outputs = {"outputs_fn": lambda p: p, "outputs_loss_fn": lambda z: jnp.sum(z)}
    x = jnp.ones(2)

    def steps(**settings):
        opt = o.sso(0.5, optax.sgd(1.0), 1, **settings)
        _, found = jax.lax.scan(
            lambda state, _: opt.update(x, state, x, **outputs)[::-1], opt.init(x), length=3
        )
        return np.asarray(found[:, 0])

    t = np.arange(1, 4)
    np.testing.assert_allclose(steps(), -1.0)
    np.testing.assert_allclose(steps(eta_schedule="stochastic"), -1 / np.sqrt(t))
    exponential = steps(eta_schedule="exponential", total_steps=4)
    np.testing.assert_allclose(exponential, -(4.0 ** (-t / 4)))
    np.testing.assert_allclose(steps(eta_schedule=lambda count: 1.0 + count), -1.0 / t)


def test_armijo_rests_at_a_stationary_point_and_stops_a_hopeless_search():
    opt = o.armijo(init_step=2.0, backtrack=0.5, expand=1.0)
    x = jnp.zeros(2)
    update = jax.jit(opt.update, static_argnames="value_fn")
    _, state = update(x, opt.init(x), x, value_fn=target)
    found, _ = update(x + 1, state, x, value_fn=target)
    assert not np.any(found)
    # a loss that rises whatever the step: decreased from 2 until it is below 1e-6
    up = lambda p: jnp.where(jnp.all(p == 0), 0.0, 1.0) + 0.0 * jnp.sum(p)  # noqa: E731
    found, state = update(x + 1, opt.init(x), x, value_fn=up)
    np.testing.assert_allclose(found, -(2.0**-20), rtol=1e-12)


@jax.custom_vjp
def counted(x):
    """A loss whose gradient is sorted entries, for a compiler copies and merges no sorting."""
    return jnp.sum(x**2)


counted.defvjp(lambda x: (counted(x), x), lambda x, scale: (scale * jnp.sort(x),))


@pytest.mark.parametrize("steps", [1, 2])
def test_the_first_direction_costs_no_gradient_of_the_proxy(steps):
    """That of the correction is its own: there are as many gradients as inner steps."""
    opt, x = o.proxy_prox(0.1, steps), jnp.linspace(0.1, 1.0, 5)
    state = opt.init(x)
    step = jax.jit(lambda g, s, x: opt.update(g, s, x, proxy_fn=counted))
    text = step.lower(x, state, x).compile().as_text()
    assert len(re.findall(r" sort\(", text)) == steps


@pytest.mark.parametrize("momentum", [None, 0.4])
def test_fista_goes_to_where_the_parts_balance(momentum):
    """u^2 + (cosine, concave near 0), against its stationary point."""
    prox = lambda v, h: v / (1 + 2 * h)  # noqa: E731
    opt, y = o.convex_concave_fista(0.2, prox, momentum), jnp.array([0.5, 1.0])
    state = opt.init(y)
    concave = lambda u: jnp.sum(jnp.cos(u) + u)  # noqa: E731
    step = jax.jit(lambda y, s: opt.update(jax.grad(concave)(y), s, y))
    for _ in range(400):
        u, state = step(y, state)
        y = y + u
    x = gradchain.eval_params(state, y)
    np.testing.assert_allclose(2 * x - np.sin(x) + 1, 0.0, atol=1e-9)


def test_the_ginzburg_landau_step_by_both_of_its_forms():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(5, 5))
    matrix, v = a @ a.T, {"u": rng.normal(size=(5, 2)), "v": rng.normal(size=5)}
    eps, s, h = 0.3, 2.0, 0.7
    inverse = np.linalg.inv(np.eye(5) + h * (eps * matrix + s / eps * np.eye(5)))
    for laplacian in (matrix, tuple(np.linalg.eigh(matrix))):
        found = o.ginzburg_landau_prox(laplacian, eps, s)(jax.tree.map(jnp.asarray, v), h)
        close(found, {n: inverse @ leaf for n, leaf in v.items()})


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: o.proxy_prox(0.1, inner_steps=0), "proxy_prox: inner_steps=0"),
        (lambda: step_of(o.proxy_prox(0.1)), "proxy_prox needs `proxy_fn`"),
        (
            lambda: step_of(o.proxy_prox(0.1), proxy_fn=lambda p: p["b"]),
            "proxy_fn must return a scalar loss",
        ),
        (lambda: o.sso(0.0), "sso: eta=0"),
        (lambda: o.sso(1.0, eta_schedule="exponential"), "needs total_steps"),
        (lambda: o.sso(1.0, expand=0.5), "sso: expand=0.5"),
        (lambda: o.convex_concave_fista(0.0, lambda t, h: t), "step_size=0"),
        (lambda: o.ginzburg_landau_prox(np.eye(2), 0.0, 2.0), "eps=0"),
    ],
)
def test_refusals(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()

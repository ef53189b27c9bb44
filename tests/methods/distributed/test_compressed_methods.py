"""DeMo, PowerSGD, EF21 and EControl with several workers, against their algorithms in NumPy."""

import inspect

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.catalogue import METHODS
from workers import AXIS, WORLDS

pytestmark = pytest.mark.usefixtures("x64")

WITH_AXIS = sorted(
    name
    for name, entry in METHODS.items()
    if "workers" in entry.tags and "axis_name" in inspect.signature(entry.factory).parameters
)
RNG = np.random.default_rng(3)
START = {"w": RNG.normal(size=(6, 4)), "b": RNG.normal(size=5)}
OWN = {n: RNG.normal(size=(3, 6, *x.shape)) for n, x in START.items()}


def run_of(opt):
    def train(grads, params):
        def step(carry, g):
            params, state = carry
            updates, state = opt.update(g, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, opt.init(params)), grads)[1]

    return train


def in_both_worlds(opt):
    found = [world(run_of(opt), jax.tree.map(jnp.asarray, OWN), START) for world in WORLDS.values()]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-12, 1e-12), *found)
    return found[0]


def dct(n):
    i, k = np.mgrid[:n, :n]
    matrix = np.cos(np.pi * (2 * i + 1) * k / (2 * n)) * np.sqrt(2 / n)
    matrix[:, 0] = np.sqrt(1 / n)
    return matrix


def kept(row, k):
    mask = np.zeros(row.shape, bool)
    mask.flat[np.argsort(-np.abs(row), axis=None, kind="stable")[:k]] = True
    return mask


def test_demo_by_blocks_with_senders_of_their_own():
    """Blocks of (3, 2) of a (6, 4) matrix, two coefficients of each from each of three workers."""
    eta, beta, decay = 0.1, 0.9, 0.2
    left, right = dct(3), dct(2)
    theta, D = START["w"].copy(), np.zeros((3, 6, 4))
    found = in_both_worlds(
        gradchain.optimizers.demo(eta, beta, 2, 3, weight_decay=decay, axis_name=AXIS)
    )
    for t in range(6):
        theta *= 1 - eta * decay
        D = beta * D + eta * OWN["w"][:, t]
        q = np.zeros((6, 4))
        for a in range(0, 6, 3):
            for b in range(0, 4, 2):
                block = np.s_[a : a + 3, b : b + 2]
                total, count = np.zeros((3, 2)), np.zeros((3, 2))
                for r in range(3):
                    coefficients = left.T @ D[r][block] @ right
                    mask = kept(coefficients, 2)
                    total, count = total + mask * coefficients, count + mask
                    D[r][block] -= left @ (mask * coefficients) @ right.T
                q[block] = left @ (total / np.maximum(count, 1)) @ right.T
        theta -= eta * np.sign(q)
        np.testing.assert_allclose(found["w"][t], theta, rtol=1e-9)


def test_power_sgd_alternating():
    """The package's algorithm: two steps of plain averaging, then P and Q in turn."""
    eta, mu, wd, rank, workers = 0.05, 0.9, 0.01, 2, 3
    p, q = RNG.normal(size=(6, rank)), RNG.normal(size=(4, rank))
    opt = gradchain.optimizers.power_sgd(
        eta, rank, mu, True, wd, 2.39, start_compressing_after_num_steps=2, axis_name=AXIS,
        init_factors={"p": {"w": p, "b": None}, "q": {"w": q, "b": None}},
    )  # fmt: skip
    found = in_both_worlds(opt)
    theta, E, buffer = START["w"].copy(), np.zeros((workers, 6, 4)), 0
    for t in range(6):
        if t < 2:
            d = OWN["w"][:, t].mean(0)
        else:
            M = OWN["w"][:, t] + E
            if t % 2 == 0:
                p = np.linalg.qr(p)[0]
                parts = [m.T @ p for m in M]
                E = np.stack([m - p @ part.T for m, part in zip(M, parts, strict=True)])
                q = sum(parts)
            else:
                q = np.linalg.qr(q)[0]
                parts = [m @ q for m in M]
                E = np.stack([m - part @ q.T for m, part in zip(M, parts, strict=True)])
                p = sum(parts)
            d = p @ q.T / workers
        d = d + wd * theta
        buffer = mu * buffer + d
        theta = theta - eta * (d + mu * buffer)
        np.testing.assert_allclose(found["w"][t], theta, rtol=1e-9)


def top(flat, k):
    return flat * kept(flat, k)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 5.0)])
@pytest.mark.parametrize("init", ["full", "zero"])
def test_ef21_with_weights(weights, init):
    n, eta, wd, k = 3, 0.1, 0.05, 7
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights) / sum(weights)
    opt = gradchain.optimizers.error_feedback(
        eta, k, weights, init, weight_decay=wd, axis_name=AXIS
    )
    found = in_both_worlds(opt)
    flat = np.concatenate([OWN["b"].reshape(n, 6, -1), OWN["w"].reshape(n, 6, -1)], axis=2)
    theta, G = np.concatenate([START["b"], START["w"].ravel()]), np.zeros((n, 29))
    for t in range(6):
        a = flat[:, t] / (n * w[:, None])
        sent = [x if t == 0 and init == "full" else top(x, k) for x in a - G]
        G = G + np.stack(sent)
        theta = theta - eta * (w @ G + wd * theta)
        np.testing.assert_allclose(found["b"][t], theta[:5], rtol=1e-9)
        np.testing.assert_allclose(found["w"][t].ravel(), theta[5:], rtol=1e-9)


@pytest.mark.parametrize(("per_leaf", "leaves"), [(False, {"w"}), (True, {"w", "b"})])
@pytest.mark.parametrize("name", ["econtrol", "error_feedback"])
def test_the_largest_of_all_entries_or_of_each_leaf(name, per_leaf, leaves):
    opt = getattr(gradchain.optimizers, name)(0.5, k=1, init="zero", per_leaf=per_leaf)
    g = {"w": jnp.array([[1.0, -4.0], [3.0, 0.0]]), "b": jnp.array([1.0, 2.0])}
    sent = {"w": [[0.0, 2.0], [0.0, 0.0]], "b": [0.0, -1.0]}
    updates, _ = opt.update(g, opt.init(g), g)
    for k, x in updates.items():
        np.testing.assert_array_equal(x, np.asarray(sent[k]) * (k in leaves))


def test_the_error_of_econtrol_is_the_sum_of_the_differences():
    opt = gradchain.optimizers.econtrol(0.1, eta=0.3, k=4, axis_name=AXIS)

    def train(grads, params):
        def step(state, g):
            _, state = opt.update(g, state, params)
            held = optax.tree.get(state, "estimate")
            return state, jax.tree.map(jnp.subtract, g, held)

        state, differences = jax.lax.scan(step, opt.init(params), grads)
        left = jax.tree.map(lambda d, e: d.sum(0) - e, differences, optax.tree.get(state, "error"))
        return left

    found = WORLDS["stacked"](train, jax.tree.map(jnp.asarray, OWN), START, agree=False)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(found)) < 1e-12


def test_without_error_weight_econtrol_is_ef21():
    ours = in_both_worlds(gradchain.optimizers.econtrol(0.1, eta=0.0, k=4, axis_name=AXIS))
    ef21 = in_both_worlds(gradchain.optimizers.error_feedback(0.1, k=4, axis_name=AXIS))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-12), ours, ef21)


@pytest.mark.parametrize("name", WITH_AXIS)
def test_an_axis_that_is_not_there_is_named(name):
    entry = METHODS[name]
    opt = entry.build(axis_name="nowhere")
    state = opt.init(START)
    extras = {n: lambda x, *_: x for n in gradchain.needs(opt) if n != "params"}
    with pytest.raises(ValueError, match=f"{name}.*axis_name='nowhere' is no axis here"):
        opt.update(START, state, START, **extras)

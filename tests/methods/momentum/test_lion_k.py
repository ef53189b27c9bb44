"""Lion-K: every member of the family against numpy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from trajectories import MASK, assert_close, by_leaf, draws, falling, rate_at, run


def top_entries(x):
    largest = abs(x) == np.max(abs(x))
    return np.sign(x) * largest / np.sum(largest)


def unit_rows(x):
    return np.sign(x) if x.ndim == 0 else x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True))


def polar(x):
    if x.ndim != 2:
        return np.sign(x)
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return u @ vt


def lp(p):
    return lambda x: np.sign(x) * (abs(x) / np.sum(abs(x) ** p) ** (1 / p)) ** (p - 1)


MEMBERS = {
    "l1": (np.sign, {}),
    "l2": (lambda x: x / np.sqrt(np.sum(x**2)), {}),
    "lp": (lp(3.5), {"power": 3.5}),
    "linf": (top_entries, {}),
    "group_l2": (unit_rows, {}),
    "huber": (lambda x: np.clip(x / 0.4, -1, 1), {"delta": 0.4}),
    "trunc_l1": (lambda x: np.where(abs(x) > 0.3, np.sign(x), 0), {"threshold": 0.3}),
    "nuclear": (polar, {}),
    "quadratic": (lambda x: x, {}),
}


def lion_k(x, gs, learning_rate, subgradient, b1, b2, weight_decay):
    m, out = 0 * x, []
    for t, g in enumerate(gs, 1):
        c = b1 * m + (1 - b1) * g
        x = x - rate_at(learning_rate, t) * (subgradient(c) + weight_decay * x)
        m = b2 * m + (1 - b2) * g
        out.append(x)
    return out


@pytest.mark.parametrize("kappa", MEMBERS)
def test_follows_the_transcription(kappa):
    rule, settings = MEMBERS[kappa]
    params, grads = draws()
    common = {"b1": 0.7, "b2": 0.8, "weight_decay": 0.3, "mask": MASK}
    got = run(optimizers.lion_k(falling, kappa, **common, **settings), params, grads)
    wanted = by_leaf(lion_k, params, grads, learning_rate=falling, subgradient=rule, **common)
    assert_close(got, wanted)


@pytest.mark.parametrize("kappa", MEMBERS)
def test_zero_stays_zero(kappa):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(4), "s": jnp.ones(())}
    opt = optimizers.scale_by_lion_k(kappa, **MEMBERS[kappa][1])
    zero = optax.tree.zeros_like(params)
    updates, _ = opt.update(zero, opt.init(params))
    assert all((u == 0).all() for u in updates.values())


def test_edges_of_lp_and_ties_of_linf():
    g = jnp.array([3.0, 0.0, -3.0, 1.0])

    def direction(kappa, **settings):
        opt = optimizers.scale_by_lion_k(kappa, b1=0.0, **settings)
        return opt.update(g, opt.init(g))[0]

    np.testing.assert_array_equal(direction("lp", power=1.0), [1, 0, -1, 1])
    np.testing.assert_array_equal(direction("linf"), [0.5, 0, -0.5, 0])
    np.testing.assert_allclose(direction("lp", power=2.0), direction("l2"), rtol=1e-6)
    with pytest.raises(ValueError, match="power"):
        optimizers.lion_k(0.1, "lp", power=0.5)
    with pytest.raises(ValueError, match="kappa"):
        optimizers.lion_k(0.1, "l3")


def test_nuclear_leaves_out_the_null_space():
    g = jnp.outer(jnp.array([3.0, 4.0, 0.0]), jnp.array([1.0, 0.0]))
    opt = optimizers.scale_by_lion_k("nuclear", b1=0.0)
    updates, _ = opt.update(g, opt.init(g))
    np.testing.assert_allclose(updates, g / 5.0, atol=1e-6)


def test_kappa_may_be_a_function():
    g = jnp.array([3.0, -0.5])
    opt = optimizers.scale_by_lion_k(jnp.tanh, b1=0.0)
    np.testing.assert_allclose(opt.update(g, opt.init(g))[0], np.tanh(g), rtol=1e-6)


def test_weight_decay_bounds_the_norm():
    """|x|_2 ends at 1 / weight_decay when the loss would have it grow for ever."""
    opt = optimizers.lion_k(0.1, "l2", weight_decay=0.5)
    params = {"w": np.array([0.1, 0.2])}
    grads = [{"w": np.array([-3.0, -4.0])}] * 150
    end = run(opt, params, grads)[-1]["w"]
    np.testing.assert_allclose(end, [1.2, 1.6], rtol=1e-3)

"""LARS and SGD-SaI: leaves with steps of their own size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from trajectories import MASK, assert_close, by_leaf, draws, falling, rate_at, run


def sgd_sai(x, gs, learning_rate, momentum, eps, weight_decay):
    out = []
    for t, g in enumerate(gs, 1):
        if t == 1:
            std = np.std(g, ddof=1) if np.size(g) > 1 else 0.0
            gsnr, m = np.sqrt(np.sum(g**2)) / (std + eps), g
        else:
            m = momentum * m + (1 - momentum) * g
        rate = rate_at(learning_rate, t)
        x = x * (1 - rate * weight_decay) - rate * gsnr * (m if momentum else g)
        out.append(x)
    return out


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_sai(momentum):
    settings = {"momentum": momentum, "eps": 0.1, "weight_decay": 0.3, "mask": MASK}
    params, grads = draws()
    wanted = by_leaf(sgd_sai, params, grads, learning_rate=falling, **settings)
    assert_close(run(optimizers.sgd_sai(falling, **settings), params, grads), wanted)


def test_sgd_sai_keeps_a_leaf_whose_first_gradient_was_zero():
    params = {"w": jnp.ones(3)}
    opt = optimizers.sgd_sai(0.1, weight_decay=0.0)
    state = opt.init(params)
    for g in (jnp.zeros(3), jnp.array([1.0, 2.0, 3.0])):
        updates, state = opt.update({"w": g}, state, params)
        np.testing.assert_array_equal(updates["w"], 0.0)


def test_sgd_sai_std_does_not_overflow():
    g = {"w": jnp.array([1e25, -1e25, 1e25], jnp.float32)}
    opt = optimizers.sgd_sai(1.0, weight_decay=0.0)
    state = opt.update(g, opt.init(g), g)[1]
    assert bool(jnp.isfinite(optax.tree.get(state, "mu")["w"]).all())


LARS = [
    {"weight_decay": 0.3, "trust_coefficient": 0.1, "eps": 0.2, "nesterov": True, "momentum": 0.7},
    {"weight_decay": 0.3, "weight_decay_mask": MASK, "trust_ratio_mask": lambda params: MASK},
    {"weight_decay": 0.3, "weight_decay_mask": False, "trust_ratio_mask": False},
]


@pytest.mark.parametrize("settings", LARS, ids=range(len(LARS)))
def test_lars_is_that_of_optax(settings):
    params, grads = draws()
    params["b"] = 0 * params["b"]
    wanted = run(optax.lars(falling, **settings), params, grads)
    assert_close(run(optimizers.lars(falling, **settings), params, grads), wanted)


def test_trust_ratios_at_zero():
    """A ratio of 1 where weights or update vanish, with finite derivatives."""
    params = {"zero": jnp.zeros(3), "some": jnp.ones(3)}
    grads = {"zero": jnp.ones(3), "some": jnp.zeros(3)}
    opt = optimizers.lars(1.0)

    def update(grads):
        return opt.update(grads, opt.init(params), params)[0]

    np.testing.assert_array_equal(update(grads)["zero"], -1.0)
    np.testing.assert_array_equal(update(grads)["some"], 0.0)
    slopes = jax.grad(lambda g: sum(jnp.sum(u) for u in update(g).values()))(grads)
    assert all(bool(jnp.isfinite(s).all()) for s in slopes.values())

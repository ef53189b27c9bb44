"""The composite step, and that its last iterate solves the composite problem."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import composite_sgd
from gradchain.schedules import last_iterate_schedule
from gradchain.transforms.projections import box


def soft(params, rate):
    """Of the sum of the absolute values."""
    return {"x": jnp.sign(params["x"]) * jnp.maximum(jnp.abs(params["x"]) - rate, 0)}


def test_the_last_iterate_is_the_lasso_solution():
    target = jnp.array([3.0, -0.5, 0.2, -2.0])
    opt = composite_sgd(last_iterate_schedule("linear", eta=5.0, total_steps=200), soft)
    params = {"x": jnp.zeros(4)}
    state = opt.init(params)
    for _ in range(200):
        updates, state = opt.update({"x": params["x"] - target}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["x"], [2.0, 0.0, 0.0, -1.0], atol=1e-3)


def test_the_rate_of_the_step_reaches_the_operator():
    seen = []
    opt = composite_sgd(lambda count: 1.0 / (count + 1), lambda x, rate: seen.append(rate) or x)
    params = jnp.ones(2)
    state = opt.init(params)
    for _ in range(3):
        updates, state = opt.update(params, state, params)
    np.testing.assert_allclose(updates, -1 / 3, rtol=1e-6)
    np.testing.assert_allclose([float(rate) for rate in seen[-3:]], [1.0, 1 / 2, 1 / 3])


def test_sets_and_trees_that_do_not_fit():
    opt = composite_sgd(1.0, lambda params, rate: box(-1.0, 1.0)(params))
    params = {"x": jnp.array([0.5])}
    updates, _ = opt.update({"x": jnp.array([-4.0])}, opt.init(params), params)
    assert updates["x"].tolist() == [0.5]
    wrong = composite_sgd(1.0, lambda params, rate: params["x"])
    with pytest.raises(ValueError, match="composite_sgd"):
        wrong.update(params, wrong.init(params), params)

"""Methods of the family against their rules in NumPy, at settings off the defaults."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from adaptive_rules import gravity
from gradchain import optimizers
from trajectories import (
    STEPS,
    assert_close,
    draws,
    falling,
    run,
)


def test_gravity_starts_at_the_given_normals():
    params, grads = draws()
    normals = draws(seed=5)[0]
    opt = optimizers.gravity(
        falling, alpha=0.3, beta=0.8, key=1, sampler=lambda key, count, params: normals
    )
    wanted = {
        k: gravity(params[k], [g[k] for g in grads], falling, 0.3, 0.8, start=normals[k])
        for k in params
    }
    assert_close(
        run(opt, params, grads), [{k: w[t] for k, w in wanted.items()} for t in range(STEPS)]
    )


def test_gravity_starts_at_random():
    params = {"w": jnp.zeros((50, 40)), "b": jnp.zeros((50, 40))}
    state = optimizers.gravity(0.5, alpha=0.1, key=3).init(params)
    v = np.asarray(optax.tree.get(state, "velocity")["w"])
    assert abs(v.std() - 0.2) < 0.01
    assert not np.array_equal(v, optax.tree.get(state, "velocity")["b"])
    typed = optimizers.gravity(0.5, alpha=0.1, key=jax.random.key(3)).init(params)
    np.testing.assert_array_equal(optax.tree.get(typed, "velocity")["w"], v)

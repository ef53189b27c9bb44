"""Methods of the family against their rules in NumPy, at settings off the defaults."""

import jax
import numpy as np
import optax
from adaptive_rules import optimistic_amsgrad
from gradchain import optimizers
from trajectories import (
    STEPS,
    assert_close,
    draws,
    falling,
    run,
    single,
)


def test_optimistic_amsgrad_with_given_predictions():
    params, grads = draws()
    predicted = draws(seed=7)[1]
    settings = {"predictor": "given", "b2": 0.8, "weight_decay": 0.1}
    opt = optimizers.optimistic_amsgrad(falling, **settings)
    assert "predicted_grads" in opt.needs
    fed = jax.tree.map(lambda *x: np.stack(x), *predicted)
    wanted = {
        k: optimistic_amsgrad(
            params[k],
            [g[k] for g in grads],
            falling,
            predicted=[p[k] for p in predicted],
            **settings,
        )
        for k in params
    }
    got = run(opt, params, grads, predicted_grads=fed)
    assert_close(got, [{k: w[t] for k, w in wanted.items()} for t in range(STEPS)])


def test_a_perfect_guess_leaves_the_second_moment_alone():
    """With constant gradients the last one predicts the next, and v stays at its first value."""
    params, grads = single(draws())
    opt = optimizers.optimistic_amsgrad(0.1, predictor="last")
    state = opt.init(params)
    update = jax.jit(opt.update)
    _, state = update(grads[0], state, params)
    first = optax.tree.get(state, "nu_max")
    for _ in range(3):
        _, state = update(grads[0], state, params)
    np.testing.assert_array_equal(optax.tree.get(state, "nu_max")["w"], first["w"])

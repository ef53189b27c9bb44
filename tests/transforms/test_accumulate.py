"""Micro-batches: the step on their means is the step on the batch, whatever the method looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import accumulate, eval_params
from gradchain import optimizers as o
from samples import needs_of, sample
from subjects import NAMES, same

BY_LOSS = [n for n in NAMES if {"value"} <= set(needs_of(n)) <= {"params", "value"}]
PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.1])}
GRADS = [jax.tree.map(lambda x, i=i: x * (1 + i) + 0.1 * i, PARAMS) for i in range(4)]
LOSSES = [3.0, 1.0, 2.0, 6.0]


def mean(trees):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def run(opt, gradients, losses):
    @jax.jit
    def step(carry, fed):
        params, state = carry
        updates, state = opt.update(fed[0], state, params, value=fed[1])
        return (optax.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    return jax.lax.scan(step, (PARAMS, opt.init(PARAMS)), (stacked, jnp.array(losses)))[0]


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a, b)


@pytest.mark.parametrize("name", [*BY_LOSS, "adam", "schedule_free_sgd"])
def test_two_micro_batches_are_one_batch(name):
    pairs = [mean(GRADS[:2]), mean(GRADS[2:])]
    params, state = run(sample(name), pairs, [2.0, 4.0])
    found, own = run(accumulate(sample(name), 2), GRADS, LOSSES)
    close(found, params)
    close(eval_params(own, found), eval_params(state, params))


def test_foreign_rules_see_the_mean_loss_too():
    opt = optax.contrib.momo(10.0)
    params, _ = run(opt, [mean(GRADS)], [3.0])
    found, _ = run(accumulate(opt, 4), GRADS, LOSSES)
    close(found, params)
    last, _ = run(optax.MultiSteps(opt, 4).gradient_transformation(), GRADS, LOSSES)
    assert not np.allclose(last["w"], params["w"])


def test_in_between_all_rests_and_a_new_number_compiles_nothing():
    opt = accumulate(o.adam(0.1), 2)
    state = opt.init(PARAMS)
    updates, after = opt.update(GRADS[0], state, PARAMS)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert same(after.adam, state.adam)

    @jax.jit
    def moved(micro_batches, gradients):
        opt = accumulate(o.sgd(1.0), micro_batches)
        state, moves = opt.init(PARAMS), []
        for g in gradients:
            updates, state = opt.update(g, state, PARAMS)
            moves.append(updates["b"][0] != 0)
        return jnp.stack(moves)

    assert moved(2, GRADS).tolist() == [False, True, False, True]
    assert moved(3, GRADS).tolist() == [False, False, True, False]
    assert moved._cache_size() == 1


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_micro_batch_without_a_loss_takes_its_batch_with_it_and_no_other(loss):
    opt = accumulate(o.momo(1.0), 2)
    found, _ = run(opt, GRADS, [loss, 1.0, 2.0, 6.0])
    expected, _ = run(opt, GRADS[2:], [2.0, 6.0])
    close(found, expected)


def test_half_precision_sums_in_float32():
    opt = accumulate(o.sgd(1.0), 256)
    params = jnp.zeros(1, jnp.bfloat16)
    state = opt.init(params)
    update = jax.jit(opt.update)
    for _ in range(256):
        updates, state = update(jnp.ones(1, jnp.bfloat16), state, params)
    assert updates.tolist() == [-1.0]
    assert updates.dtype == jnp.bfloat16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_seen_by_what_stands_inside(bad):
    opt = accumulate(optax.apply_if_finite(o.adam(0.1), 9), 2)
    broken = jax.tree.map(lambda x: np.full_like(x, bad), GRADS[0])
    found, _ = run(opt, [broken, *GRADS[1:]], [1.0] * 4)
    expected, _ = run(opt, GRADS[2:], [1.0] * 2)
    close(found, expected)

"""Methods of single examples' gradients: what one example can change, noise, and their refusals."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.catalogue import METHODS
from gradchain.optimizers import (
    add_private_noise,
    clipped_gradient_sum,
    diff2,
    differentially_private_aggregate,
    dp_sgd,
    poisson_sample,
)
from workers import AXIS, WORLDS

NAMES = sorted(name for name, entry in METHODS.items() if entry.kind == "per_example")
PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}


def examples(count, seed=0, size=1.0):
    rng = np.random.default_rng(seed)
    return {
        k: jnp.asarray(size * rng.normal(size=(count, *x.shape)), x.dtype)
        for k, x in PARAMS.items()
    }


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def silent(key, count, params):
    return jax.tree.map(jnp.zeros_like, params)


@pytest.mark.parametrize("value", [1e4, 1e30, np.nan, np.inf])
def test_one_example_moves_the_sum_by_no_more_than_the_clip(value):
    tx = differentially_private_aggregate(0.7, 1.0, noise_fn=silent)
    ordinary = examples(6)
    changed = jax.tree.map(lambda x: x.at[2].set(value), ordinary)
    without = jax.tree.map(lambda x: x.at[2].set(0), ordinary)
    found = [flat(tx.update(g, tx.init(PARAMS), PARAMS)[0]) for g in (changed, without)]
    assert np.linalg.norm(6 * (found[0] - found[1])) <= 0.7 * (1 + 1e-5)


def test_noise_has_the_deviation_that_is_promised_and_is_drawn_once():
    """Fresh at every step and leaf; the same on all workers, who share one draw."""
    big = {"w": jnp.zeros((100, 50)), "u": jnp.zeros((100, 50))}
    tx = differentially_private_aggregate(2.0, 1.5, axis_name=AXIS)

    def train(own, shared):
        state = tx.init(shared)
        first, state = tx.update(own, state, shared)
        return first, tx.update(own, state, shared)[0]

    own = jax.tree.map(lambda x: jnp.zeros((4, 5, *x.shape)), big)
    for world in WORLDS.values():
        first, second = world(train, own, big)
        draws = np.stack([np.ravel(x) for x in (*first.values(), *second.values())]) * 20
        np.testing.assert_allclose(draws.std(axis=1), 3.0, rtol=0.05)
        assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.05


def test_chunks_add_up_to_the_stacked_gradients():
    def loss(params, example):
        return jnp.sum(jnp.tanh(example @ params["w"] + params["b"]) ** 2)

    batch = jnp.asarray(np.random.default_rng(3).normal(size=(7, 4)), jnp.float32)
    present = jnp.arange(7) != 4
    stacked = jax.vmap(jax.grad(loss), (None, 0))(PARAMS, batch[present])
    tx = differentially_private_aggregate(0.3, 0.0)
    expected = flat(tx.update(stacked, tx.init(PARAMS), PARAMS)[0])
    behind = add_private_noise(0.3, 0.0, batch_size=6)
    for size in (1, 3, 7, 100):
        total = jax.jit(
            lambda p, size=size: clipped_gradient_sum(loss, p, batch, 0.3, size, present)
        )(PARAMS)
        found = behind.update(total, behind.init(PARAMS), PARAMS)[0]
        np.testing.assert_allclose(flat(found), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="clipped_gradient_sum: batch must have"):
        clipped_gradient_sum(loss, PARAMS, (batch, jnp.zeros(3)), 0.3, 2)


def test_poisson_samples():
    draw = jax.jit(jax.vmap(lambda key: poisson_sample(key, 50, 0.2, 40)))
    numbers, present = draw(jax.random.split(jax.random.key(0), 2000))
    counts = np.zeros(50)
    for row, there in zip(np.asarray(numbers), np.asarray(present), strict=True):
        assert len(set(row[there])) == there.sum()
        counts[row[there]] += 1
    np.testing.assert_allclose(counts / 2000, 0.2, atol=0.05)


def test_dp_sgd_is_that_of_optax_with_decay_and_schedule():
    rate = optax.linear_schedule(0.5, 0.1, 5)
    opt = dp_sgd(rate, 1.0, 0.8, momentum=0.9, weight_decay=0.1, noise_fn=lambda k, c, p: p)
    params, state, buffer = PARAMS, opt.init(PARAMS), 0
    for t in range(4):
        g = examples(5, t, 2.0)
        rows = np.concatenate([np.reshape(x, (5, -1)) for x in jax.tree.leaves(g)], axis=1)
        theta = flat(params)
        clipped = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)
        buffer = 0.9 * buffer + (clipped.sum(0) + 0.8 * theta) / 5 + 0.1 * theta
        updates, state = opt.update(g, state, params)
        np.testing.assert_allclose(flat(updates), -rate(t) * buffer, rtol=1e-4, atol=1e-6)
        params = optax.apply_updates(params, updates)


def test_diff2_adds_differences_up_and_restarts():
    """Bounds and noise show by which of the two rules a round goes."""
    rate, interval, bound, slope, noise, per_distance = 0.1, 3, 2.0, 0.4, 0.5, 0.3
    targets = examples(6)
    draws = [examples(1, seed=40 + t) for t in range(8)]
    table = {k: jnp.stack([x[k][0] for x in draws]) for k in PARAMS}

    def grads_fn(params):
        return jax.tree.map(lambda x, t: jnp.sinh(x[None] - t), params, targets)

    def clipped_mean(g, c):
        rows = np.concatenate([np.reshape(x, (6, -1)) for x in jax.tree.leaves(g)], axis=1)
        return (rows * np.minimum(1, c / np.linalg.norm(rows, axis=1))[:, None]).mean(0)

    opt = diff2(
        rate, interval, bound, slope, noise, per_distance,
        noise_fn=lambda key, count, params: jax.tree.map(lambda x: x[count], table),
    )  # fmt: skip
    params, state, v, past = PARAMS, opt.init(PARAMS), 0.0, None
    for t in range(7):
        g, xi = grads_fn(params), flat(jax.tree.map(lambda x, t=t: x[t], table))
        if t % interval == 0:
            v = clipped_mean(g, bound) + noise * xi
        else:
            distance = np.linalg.norm(flat(params) - flat(past))
            difference = jax.tree.map(jnp.subtract, g, grads_fn(past))
            v = v + clipped_mean(difference, slope * distance) + per_distance * distance * xi
        updates, state = opt.update(g, state, params, grads_fn=grads_fn)
        np.testing.assert_allclose(flat(updates), -rate * v, rtol=1e-4, atol=1e-6)
        past, params = params, optax.apply_updates(params, updates)
    with pytest.raises(ValueError, match="previous_grads"):
        opt.update(targets, opt.init(PARAMS), PARAMS)


def test_diff2_that_did_not_move_stays_where_it_is():
    opt = diff2(0.0, 10, 1.0, 1.0, 0.0, 5.0)
    state, g = opt.init(PARAMS), examples(3)
    for seed in range(3):
        updates, state = opt.update(g, state, PARAMS, previous_grads=examples(3, seed))
        assert np.isfinite(flat(updates)).all()
    held = optax.tree.get(state, "estimate")
    tx = differentially_private_aggregate(1.0, 0.0)
    first = tx.update(g, tx.init(PARAMS), PARAMS)[0]
    np.testing.assert_allclose(flat(held), flat(first), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_of_single_examples(name):
    """Jitted steps of one type, finite in bfloat16, nothing of nothing, and refusals by name."""
    opt = METHODS[name].build(noise_fn=silent)
    for dtype in (jnp.float32, jnp.bfloat16):
        params = jax.tree.map(lambda x, d=dtype: x.astype(d), PARAMS)
        g = jax.tree.map(lambda x, d=dtype: x.astype(d), examples(4))
        extra = {"previous_grads": g} if "previous_grads" in gradchain.needs(opt) else {}
        step = jax.jit(lambda g, s, p, extra=extra: opt.update(g, s, p, **extra))
        state = opt.init(params)
        updates, after = step(g, state, params)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert step(g, after, params)[1] is not None
        assert step._cache_size() == 1
        assert np.isfinite(flat(updates).astype(np.float32)).all()
    with pytest.raises(ValueError, match=rf"{name}.*leading axis of examples"):
        opt.update(PARAMS, opt.init(PARAMS), PARAMS, previous_grads=PARAMS)
    nothing = jax.tree.map(lambda x: jnp.zeros((4, *x.shape)), PARAMS)
    updates, _ = opt.update(nothing, opt.init(PARAMS), PARAMS, previous_grads=nothing)
    assert (flat(updates) == 0).all()

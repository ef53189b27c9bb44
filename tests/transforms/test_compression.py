"""Compressors, and the error feedback around them, on a mesh and stacked on one device."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.compression import (
    chunked_dct,
    compress,
    compress_differences,
    compress_with_error_feedback,
    power_iteration,
    quantised,
    rand_k,
    scaled_sign,
    top_k,
)
from workers import AXIS, WORLDS

PARAMS = {"w": jnp.ones((4, 6)), "b": jnp.arange(3.0), "s": jnp.array(2.0)}
FAMILY = {
    "top_k": lambda: top_k(4),
    "top_k per leaf": lambda: top_k(2, per_leaf=True),
    "rand_k": lambda: rand_k(4),
    "scaled_sign": scaled_sign,
    "quantised 2": lambda: quantised(2, block_size=5),
    "quantised 4": lambda: quantised(4, block_size=5),
    "quantised 8": lambda: quantised(8, stochastic=False),
    "chunked_dct": lambda: chunked_dct(2, 3),
    "power_iteration": lambda: power_iteration(1, min_compression_rate=0.0),
    "power_iteration twice": lambda: power_iteration(2, 2, min_compression_rate=0.0),
    "power_iteration paper": lambda: power_iteration(2, variant="paper"),
    "a function": lambda: lambda tree: jax.tree.map(jnp.round, tree),
}
COMBINED = {"feedback": compress_with_error_feedback, "differences": compress_differences}


def own_gradients(workers=4, steps=3, seed=0):
    keys = iter(jax.random.split(jax.random.key(seed), len(PARAMS)))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), (workers, steps, *x.shape)), PARAMS)


def run_of(opt):
    def train(grads, params):
        def step(state, g):
            u, state = opt.update(g, state, params)
            return state, u

        return jax.lax.scan(step, opt.init(params), grads)[1]

    return train


@pytest.mark.parametrize("combined", COMBINED)
@pytest.mark.parametrize("name", FAMILY)
def test_the_same_in_both_worlds_and_typed_the_same_on_all_workers(name, combined):
    opt = COMBINED[combined](FAMILY[name](), AXIS)
    mesh, stacked = (world(run_of(opt), own_gradients(), PARAMS) for world in WORLDS.values())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-5), mesh, stacked)


@pytest.mark.parametrize("name", FAMILY)
def test_what_was_not_sent_comes_later(name):
    """The sum of what was sent and the errors is the sum of the gradients, in the mean."""
    opt = compress_with_error_feedback(FAMILY[name](), AXIS)

    def train(grads, params):
        def step(state, g):
            u, state = opt.update(g, state, params)
            return state, u

        state, sent = jax.lax.scan(step, opt.init(params), grads)
        left = jax.lax.pmean(gradchain.transforms.notation.plain.own_arrays(state.error), AXIS)
        return jax.tree.map(lambda u, e: jnp.sum(u, 0) + e, sent, left)

    grads = own_gradients()
    if name == "chunked_dct":  # the mean over the senders is no mean over all
        grads = jax.tree.map(lambda x: x[:1], grads)
    found = WORLDS["stacked"](train, grads, PARAMS)
    expected = jax.tree.map(lambda x: x.mean(0).sum(0), grads)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 2e-4, 2e-4), found, expected)


BYTES = {
    "top_k": 4 * 8,
    "top_k per leaf": (2 + 2 + 1) * 8,
    "scaled_sign": (3 + 4) + (1 + 4) + (1 + 4),  # 24, 3 and 1 bits, and a scale each
    "quantised 2": (6 + 5 * 4) + (1 + 4) + (1 + 4),
    "quantised 8": (24 + 4) + (3 + 4) + (1 + 4),
    "chunked_dct": (4 * 2 + 1 * 2 + 1) * (4 + 1),  # chunks of (2, 3), 3 and 1 entries
    "power_iteration": (4 + 6) / 2 * 4 + 3 * 4 + 4,
    "power_iteration paper": 2 * (4 + 6) * 4 + 3 * 4 + 4,
    "a function": 28 * 4,
}


@pytest.mark.parametrize("name", BYTES)
def test_describe_counts_the_bytes_that_are_sent(name):
    report = gradchain.describe(compress(FAMILY[name](), AXIS), PARAMS)
    assert report.sent_bytes == BYTES[name]
    assert "sent per step and worker" in str(report)
    alone = gradchain.describe(compress(FAMILY[name]()), PARAMS)
    assert alone.sent_bytes == 0
    assert "sent" not in alone.summary


@pytest.mark.parametrize("per_leaf", [False, True])
def test_rand_k_is_unbiased(per_leaf):
    opt = compress(rand_k(2, per_leaf=per_leaf))
    g = {"a": jnp.arange(1.0, 6.0), "b": jnp.array([-3.0, 2.0])}
    state = opt.init(g)
    _, drawn = jax.lax.scan(lambda s, _: opt.update(g, s)[::-1], state, length=4000)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x.mean(0), y, atol=0.35), drawn, g)


def test_the_quantiser_is_unbiased_and_right_to_a_level():
    g = jnp.array([1.0, -0.31, 0.02, 0.77, -0.5])
    opt = compress(quantised(4))
    _, drawn = jax.lax.scan(lambda s, _: opt.update(g, s)[::-1], opt.init(g), length=2000)
    assert np.abs(drawn - g).max() <= 1 / 7 + 1e-6
    np.testing.assert_allclose(drawn.mean(0), g, atol=0.01)


def test_all_coefficients_are_the_tensor():
    for shape in ((), (5,), (6, 4), (2, 3, 4)):
        x = jax.random.normal(jax.random.key(1), shape)
        opt = compress(chunked_dct(10_000, 3))
        np.testing.assert_allclose(opt.update(x, opt.init(x))[0], x, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: top_k(0), "top_k: k=0"),
        (lambda: rand_k(0), "rand_k: k=0"),
        (lambda: quantised(3), "quantised: bits=3"),
        (lambda: chunked_dct(0), "chunked_dct: topk=0"),
        (lambda: power_iteration(0), "power_iteration: rank=0"),
        (lambda: compress(3), "compressor=3"),
    ],
)
def test_bad_arguments_are_refused_by_name(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_weights_of_another_number_of_workers_are_refused():
    opt = compress_differences(top_k(1), AXIS, weights=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"weights must be one number for each worker, .*\(4,\)"):
        WORLDS["stacked"](run_of(opt), own_gradients(), PARAMS)

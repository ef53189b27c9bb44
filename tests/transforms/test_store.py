"""State in 8 bits and in bfloat16."""

import json

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import replay
from gradchain import optimizers as o
from gradchain.transforms import scale_by_adam, scale_by_learning_rate
from gradchain.transforms.store import (
    dequantize_blockwise,
    dynamic_codebook,
    quantize_blockwise,
    quantize_state,
    stochastically_rounded,
    store_state,
)


def test_the_codebook():
    for signed in (True, False):
        book = dynamic_codebook(signed)
        assert len(set(book)) == 256
        assert book[-1] == 1
        assert (book[0] > -1) if signed else (book[0] == 0)


def test_codes_are_the_nearest():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    codes, largest = map(np.asarray, quantize_blockwise(x, 64))
    book = dynamic_codebook()
    relative = x / np.repeat(largest, 64)[:1000]
    off = abs(book[codes] - relative)
    assert np.all(off <= np.min(abs(book - relative[:, None]), axis=1) + 1e-7)
    again = dequantize_blockwise(codes, largest, (1000,), 64)
    np.testing.assert_allclose(again, book[codes] * np.repeat(largest, 64)[:1000], rtol=1e-6)
    zeros, nothing = quantize_blockwise(jnp.zeros(10), 4)
    assert not np.any(dequantize_blockwise(zeros, nothing, (10,), 4))
    with pytest.raises(ValueError, match="block_size"):
        quantize_blockwise(x, 0)


def test_quantised_adam_follows_the_published_one():
    with np.load(replay.REFERENCES / "quantized_state__adam_1d.npz") as archive:
        meta = json.loads(str(archive["meta"]))
        record = {key: archive[key] for key in archive.files if key != "meta"}
    kwargs = meta["kwargs"]
    adam = scale_by_adam(eps=kwargs["eps"], eps_before_correction=True)
    opt = quantize_state(
        gradchain.chain(adam, scale_by_learning_rate(kwargs["learning_rate"])),
        kwargs["block_size"],
        kwargs["min_size"],
    )
    leaves = ("a", "b", "c")
    params = {name: jnp.asarray(record[f"params/0..16/{name}"][0]) for name in leaves}
    state, step = opt.init(params), jax.jit(opt.update)
    for t in range(16):
        grads = {name: jnp.asarray(record[f"grads/1..16/{name}"][t]) for name in leaves}
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name in leaves:
            wanted = record[f"params/0..16/{name}"][t + 1]
            moved = np.max(abs(wanted - record[f"params/0..16/{name}"][0]))
            assert np.max(abs(params[name] - wanted)) < meta["rtol"] * moved, (name, t)


def test_rounding_is_right_in_the_mean():
    x = jnp.full(20000, 1.001, jnp.float32)
    low = stochastically_rounded(x, jnp.bfloat16, jax.random.key(0))
    assert low.dtype == jnp.bfloat16
    assert set(np.unique(low.astype(jnp.float32))) == {1.0, 1.0078125}
    assert abs(float(jnp.mean(low.astype(jnp.float32))) - 1.001) < 2e-4
    exact = jnp.array([0.0, 1.0, -2.5], jnp.float32)
    assert np.array_equal(stochastically_rounded(exact, jnp.bfloat16, jax.random.key(1)), exact)


@pytest.mark.parametrize("inner", [lambda: optax.adam(0.1), lambda: o.adam(0.1)])
def test_a_slow_average_moves_in_bfloat16(inner):
    x = jnp.zeros((8, 8))
    for wrapped in (store_state(inner()), quantize_state(inner(), 16, 1)):
        state, step = wrapped.init(x), jax.jit(wrapped.update)
        before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
        plain = inner()
        exact = plain.init(x)
        for t in range(20):
            g = jnp.sin(jnp.arange(64.0).reshape(8, 8) + 0.1 * t) + 2.0
            u, state = step(g, state, x)
            v, exact = plain.update(g, exact, x)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == before
        np.testing.assert_allclose(u, v, rtol=0.15, atol=0.01)
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        assert gradchain.describe(wrapped, jax.eval_shape(lambda: x)).state_bytes == held

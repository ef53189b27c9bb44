"""State in 8 bits and in bfloat16."""

import json

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import replay
from collectives import counted
from gradchain import optimizers as o
from gradchain.transforms import (
    ema,
    flow,
    named,
    scale_by_adam,
    scale_by_learning_rate,
    sqrt,
    square,
)
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


def batch(shape, steps=4):
    entries = jnp.arange(float(np.prod(shape))).reshape(shape)
    return [jnp.sin(entries + 0.7 * t) * (1 + entries) for t in range(steps)]


def run(opt, params, signals):
    state, step, outputs = opt.init(params), jax.jit(opt.update), []
    for g in signals:
        out, state = step(g, state, params)
        outputs.append(out)
    return jnp.stack(outputs), state


@pytest.mark.parametrize("shape", [(6, 10), (2, 3, 8), (7,), (), (0, 4), (4, 0)])
def test_rows_are_blocks_of_their_own(shape):
    """Along the last axis every row is quantised as if it were alone."""
    x = batch(shape)[1]
    codes, largest = quantize_blockwise(x, 4, along_last_axis=True)
    assert codes.shape == shape
    assert largest.shape == (*shape[:-1], -(-(shape[-1] if shape else 1) // 4))
    found = dequantize_blockwise(codes, largest, shape, 4, along_last_axis=True)
    rows = x.reshape(-1, *shape[-1:]) if x.size else x
    alone = [dequantize_blockwise(*quantize_blockwise(r, 4), r.shape, 4) for r in rows]
    assert np.array_equal(found.ravel(), jnp.array(alone).ravel())


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto])
@pytest.mark.parametrize("spec", [jax.P("x", "y"), jax.P("x", None), jax.P(None, "y")])
@pytest.mark.parametrize(
    "wrap", [lambda t: quantize_state(t, 8, 1, along_last_axis=True), store_state]
)
def test_on_a_mesh_state_lies_as_the_params_do(wrap, spec, kind):
    """Blocks within rows straddle no shards: the same codes as on one device, nothing sent."""
    opt, (x, *signals) = wrap(o.adam(0.1)), batch((8, 16), 5)
    alone, _ = run(opt, x, signals)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    with jax.set_mesh(mesh):
        x, *signals = jax.device_put((x, *signals), jax.NamedSharding(mesh, spec))
        before = jax.tree.map(jax.typeof, opt.init(x))
        spread, state = run(opt, x, signals)
        program = jax.jit(opt.update).lower(signals[0], state, x).compile().as_text()
    assert jax.tree.map(jax.typeof, state) == before
    shard = x.sharding.shard_shape(x.shape)
    kept = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == x.shape]
    assert [leaf.sharding.shard_shape(leaf.shape) for leaf in kept] == [shard, shard]
    assert counted(program) == {}
    np.testing.assert_allclose(jax.device_get(spread), alone, rtol=1e-5, atol=1e-7)


def test_flat_blocks_on_a_mesh_are_those_of_one_device():
    opt, (x, *signals) = quantize_state(o.adam(0.1), 24, 1), batch((8, 16), 5)
    alone, _ = run(opt, x, signals)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        spread = jax.device_put((x, *signals), jax.NamedSharding(mesh, jax.P("x", "y")))
        found, _ = run(opt, spread[0], spread[1:])
    np.testing.assert_allclose(jax.device_get(found), alone, rtol=1e-5, atol=1e-7)


WRAPPERS = {
    "flat": lambda inner: quantize_state(inner, 16, 1),
    "rows": lambda inner: quantize_state(inner, 16, 1, along_last_axis=True),
    "bfloat16": store_state,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("inner", [o.adamw, optax.adamw], ids=["ours", "optax"])
def test_stored_state_is_saved_accumulated_and_described(wrap, inner, tmp_path):
    """Orbax gives back what continues to the bit; MultiSteps around; bytes as `describe` says."""
    x, *signals = batch((6, 20), 5)
    opt = wrap(inner(0.1))
    _, state = run(opt, x, signals)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", state)
        saver.wait_until_finished()
        again = saver.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    step = jax.jit(opt.update)
    for one, other in zip(
        *map(jax.tree.leaves, (step(x, state, x), step(x, again, x))), strict=True
    ):
        assert np.array_equal(one, other)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert gradchain.describe(opt, jax.eval_shape(lambda: x)).state_bytes == held
    slow, _ = run(optax.MultiSteps(opt, 2), x, [y for g in signals for y in (2 * g, 0 * g)])
    fast, _ = run(opt, x, signals)
    np.testing.assert_allclose(slow[1::2], fast, rtol=1e-4, atol=1e-6)


def test_a_single_node_is_stored_in_8_bits():
    """What `describe` says of the nodes inside, and of a leaf that is too small."""

    second_moment = flow(lambda g: square(g) >> ema(0.999))

    def step(g):
        m = g >> ema(0.9, name="mu")
        nu = quantize_state(second_moment, block_size=16, min_size=32, signed=False)
        return m / (sqrt(g >> named("nu", nu)) + 1e-8)

    params = {"w": jnp.ones((8, 16)), "b": jnp.ones(16)}
    table = gradchain.describe(flow(step), params)
    assert table["mu"].state_bytes == 4 * (128 + 16)
    inside = [row.state_bytes for row in table.rows if row.path.startswith("nu.")]
    assert max(inside) == 128 + 4 * 8 + 4 * 16
    out, _ = run(flow(step), params["w"], batch((8, 16)))
    assert np.all(np.isfinite(out))


def test_a_codebook_that_does_not_fit_is_refused():
    x, *signals = batch((8, 16), 2)
    second = quantize_state(optax.adam(0.1), 16, 1, signed=lambda path: "nu" not in path)
    run(second, x, signals)
    traced = gradchain.inject_hyperparams(lambda b2: quantize_state(o.adam(0.1, b2=b2), 16, 1))
    run(traced(b2=0.99), x, signals)
    for inner in (optax.adam(0.1), o.adam(0.1), optax.lion(0.1), optax.sgd(0.1, momentum=0.9)):
        opt = quantize_state(inner, 16, 1, signed=False)
        with pytest.raises(ValueError, match=r"quantize_state: signed=False .*(mu|trace)"):
            opt.update(signals[0], opt.init(x), x)
    with pytest.raises(ValueError, match="signed=False"):
        quantize_blockwise(jnp.array([1.0, -1.0]), 2, signed=False)
    for name in ("block_size", "min_size"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            quantize_state(optax.adam(0.1), **{name: 0})
    with pytest.raises(ValueError, match="dtype"):
        store_state(optax.adam(0.1), jnp.int8)

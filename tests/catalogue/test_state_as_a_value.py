"""A state is a plain value: named tuples and arrays of its own, whatever stores or hands it on."""

import flax.serialization
import gradchain
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from gradchain import eval_params, restore_by_name
from gradchain.transforms import FlowError, ema
from samples import sample
from subjects import NAMES, extras_for, gradients, same, small_tree
from turns import in_turn

every_method = pytest.mark.parametrize("name", NAMES)


def nodes_of(tree):
    """All containers of a tree."""
    if hasattr(tree, "dtype"):
        return []
    children = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree)
    return [tree, *(node for child in children for node in nodes_of(child))]


@every_method
def test_every_serialiser_takes_it(name):
    """Named tuples and arrays alone: to_bytes, msgpack and `nnx.split`."""
    opt = sample(name)
    params = small_tree()
    state = opt.init(params)
    for node in nodes_of(state):
        assert node is None or isinstance(node, tuple | dict), type(node)

    blob = flax.serialization.to_bytes(state)
    back = flax.serialization.from_bytes(state, blob)
    untyped = flax.serialization.msgpack_restore(blob)
    graph, split = nnx.split(Holder(state))
    merged = nnx.as_pure(nnx.merge(graph, split).state)
    for other in (back, untyped, merged):
        pairs = zip(jax.tree.leaves(other), jax.tree.leaves(state), strict=True)
        assert all(np.array_equal(x, y) for x, y in pairs if isinstance(other, type(state)))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.tree.structure(merged) == jax.tree.structure(state)


@in_turn(NAMES, 3, of=8)
def test_it_goes_on_in_a_chain_that_gained_a_part(name):
    """Or lost one, or in a wrapper: what it has is found by the same names; others are refused."""
    opt, params = sample(name), small_tree()
    smooth = ema(0.9, name="smooth")

    def first(opt, params=params):
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(opt.init, params))

    alone, apart = first(opt), first(optax.apply_if_finite(opt, 5))
    saved = jax.tree.map(lambda x: x + np.ones((), x.dtype), alone)
    written = flax.serialization.msgpack_restore(flax.serialization.to_bytes(saved))
    for parts in ((smooth, opt), (opt, smooth)):
        longer = gradchain.chain(*parts)
        gained = restore_by_name(written, first(longer), added=["smooth"])
        assert same(restore_by_name(gained, alone, removed=["smooth"]), saved)
    own = ("notfinite_count", "last_finite", "total_notfinite")
    wrapped = restore_by_name(written, apart, added=own)
    assert same(restore_by_name(wrapped, alone, removed=own), saved)
    if jax.tree.leaves(saved):
        with pytest.raises(FlowError, match="smooth"):
            restore_by_name(written, first(longer))


class Holder(nnx.Module):
    """What an NNX optimizer does to a state: every array becomes a variable."""

    def __init__(self, state):
        self.state = nnx.data(jax.tree.map(nnx.Variable, state))


def test_orbax_with_and_without_a_target(tmp_path):
    """All methods in one checkpoint."""
    params = small_tree()
    states = {name: sample(name).init(params) for name in NAMES}
    kept = {"params": params, "states": states}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "kept", kept)
        checkpointer.wait_until_finished()
        assert same(checkpointer.restore(tmp_path / "kept", jax.eval_shape(lambda: kept)), kept)
        untyped = checkpointer.restore(tmp_path / "kept")["states"]
    for name, state in states.items():
        assert same(eval_params(untyped[name], params), eval_params(state, params))


@every_method
def test_it_owns_its_arrays(name):
    """No array of a state is the gradient's, the params' or the update's, or is there twice.

    Read from the program of a step: un-jitted, what is one value in it is one array.
    """
    opt = sample(name)
    params = small_tree()
    state = opt.init(params)
    extras = extras_for(opt, params)
    closures = {key: value for key, value in extras.items() if callable(value)}
    given = {key: value for key, value in extras.items() if not callable(value)}

    def step(state, params, grads, given):
        return opt.update(grads, state, params, **closures, **given)

    program = jax.make_jaxpr(step)(state, params, gradients(params), given).jaxpr
    before, after = len(jax.tree.leaves(params)), len(jax.tree.leaves(state))
    kept = [id(out) for out in program.outvars[before:] if isinstance(out, jax.extend.core.Var)]
    others = {id(x) for x in (*program.invars[after:], *program.outvars[:before])}
    assert len(kept) >= after - 1
    assert not others & set(kept)
    assert len(set(kept)) == len(kept)


@pytest.mark.xdist_group("operation by operation")
@pytest.mark.parametrize("name", ["adan", "diffgrad", "frugal", "scaled_gd", "galore", "sgdp"])
def test_numpy_gradients_unjitted(name):
    """From a buffer that is filled anew, in float64 with x64 off: arrays of JAX, and its own."""
    opt = sample(name)
    params = {"w": jnp.arange(12.0).reshape(4, 3) - 5.5, "b": jnp.array([1.0, -1.0, 0.5])}
    grads = jax.tree.map(lambda x: np.array(x, np.float64), gradients(params))
    state = jax.tree.map(np.asarray, opt.init(jax.tree.map(np.asarray, params)))
    updates, state = opt.update(grads, state, params)
    for leaf in jax.tree.leaves((updates, state)):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype != jnp.float64
    arrays = [leaf for leaf in jax.tree.leaves((updates, state, params)) if leaf.size]
    pointers = [leaf.unsafe_buffer_pointer() for leaf in arrays]
    assert len(set(pointers)) == len(pointers)
    snapshot = jax.tree.map(np.array, (updates, state))
    for leaf in jax.tree.leaves(grads):
        leaf.fill(np.nan)
    assert same(jax.tree.map(np.asarray, (updates, state)), snapshot)

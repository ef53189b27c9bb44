"""A state is a plain value: named tuples and arrays of its own, whatever stores or hands it on."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from gradchain.transforms import eval_params
from subjects import NAMES, extras_for, gradients, method_named, same, small_tree, step_of

every_method = pytest.mark.parametrize("name", NAMES)


def nodes_of(tree):
    """All containers of a tree."""
    if hasattr(tree, "dtype"):
        return []
    children = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree)
    return [tree, *(node for child in children for node in nodes_of(child))]


@every_method
def test_every_serialiser_takes_it(name):
    """Named tuples and arrays alone: to_bytes, msgpack, `nnx.split` and `jax.export`."""
    opt = method_named(name).build()
    params = small_tree()
    state = opt.init(params)
    for node in nodes_of(state):
        assert isinstance(node, tuple | dict), type(node)

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

    shapes = jax.eval_shape(lambda: (params, state))
    exported = jax.export.deserialize(jax.export.export(jax.jit(step_of(opt)))(*shapes).serialize())
    assert exported.in_tree == jax.tree.structure(((params, state), {}))
    assert exported.out_tree == jax.tree.structure((params, state))


class Holder(nnx.Module):
    """What an NNX optimizer does to a state: every array becomes a variable."""

    def __init__(self, state):
        self.state = nnx.data(jax.tree.map(nnx.Variable, state))


def test_orbax_with_and_without_a_target(tmp_path):
    """All methods in one checkpoint."""
    params = small_tree()
    states = {name: method_named(name).build().init(params) for name in NAMES}
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
    """Un-jitted and fed from a NumPy buffer that is filled anew; in float64 with x64 off."""
    opt = method_named(name).build()
    params = small_tree()
    grads = jax.tree.map(lambda x: np.array(x, np.float64), gradients(params))
    state = opt.init(params)
    before = jax.tree.map(np.asarray, (state, params))
    updates, state = opt.update(grads, state, params, **extras_for(opt, params))
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
    assert before is not None

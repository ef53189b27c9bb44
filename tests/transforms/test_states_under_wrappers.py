"""Periods, resets, tables and Optax's own wrappers around states of every kind."""

import jax
import jax.numpy as jnp
import optax
import pytest
from gradchain import chain, describe
from gradchain.optimizers import lazy_newton, lookahead
from gradchain.transforms import every, flow, reset_when, step_count
from gradchain.transforms.notation.foreign import owner_of
from samples import needs_of, sample
from subjects import NAMES, signature_of, small_tree, step_of

PARAMS = small_tree()


def starts_at_made_values(name):
    program = owner_of(sample(name))
    return any(callable(getattr(node, "start", None)) for node in program.graph.slots)


@pytest.mark.parametrize("name", filter(starts_at_made_values, NAMES))
def test_a_reset_returns_to_what_init_made(name):
    """A state that is reset before its second step is that of a first one."""
    opt = sample(name)
    state = opt.init(PARAMS)
    step = jax.jit(step_of(opt))
    _, once = step(PARAMS, state)

    again = flow(lambda g: g >> reset_when(step_count() > 1, opt, restart_count=True))
    params, wrapped = jax.jit(step_of(again))(PARAMS, again.init(PARAMS))
    _, wrapped = jax.jit(step_of(again))(PARAMS, wrapped)
    found = dict(floats(wrapped))
    for path, leaf in floats(once):
        key = next(key for key in found if key.endswith(path))
        assert jnp.allclose(found[key], leaf, rtol=1e-4, atol=1e-6), path
    assert signature_of(params) == signature_of(PARAMS)


def floats(state):
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    for path, leaf in paths:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            yield jax.tree_util.keystr(path), leaf


def test_tables_of_transformations_without_state():
    assert describe(chain(optax.sgd(0.1)), PARAMS).state_bytes == 0
    slow = describe(lookahead(optax.sgd(0.1)), PARAMS)
    assert slow.state_bytes >= 4 * slow.parameters
    held = describe(chain(optax.sgd(0.1, momentum=0.9), optax.clip(1.0)), PARAMS)
    assert held.state_bytes == 4 * held.parameters


def test_the_table_of_a_full_hessian_of_a_large_model():
    shapes = {f"w{i}": jax.ShapeDtypeStruct((8192, 8192), jnp.float32) for i in range(104)}
    report = describe(lazy_newton(), shapes)
    assert report.state_bytes >= 4 * report.parameters**2


def test_holding_a_masked_transformation_without_state():
    mask = jax.tree.map(lambda x: x.ndim > 1, PARAMS)
    opt = every(2, optax.masked(optax.clip(1.0), mask))
    state = opt.init(PARAMS)
    for _ in range(3):
        updates, state = opt.update(PARAMS, state, PARAMS)
    assert signature_of(updates) == signature_of(PARAMS)


@pytest.mark.parametrize("name", [n for n in NAMES if set(needs_of(n)) <= {"params"}])
def test_sam_leaves_the_dtypes_of_a_state(name):
    """`optax.contrib.sam` blends two states by arithmetic."""
    opt = optax.contrib.sam(sample(name), chain(optax.contrib.normalize(), optax.sgd(0.05)))
    state = jax.eval_shape(opt.init, PARAMS)
    _, after = jax.eval_shape(lambda s: opt.update(PARAMS, s, PARAMS), state)
    assert signature_of(after) == signature_of(state)

"""`eval_params`: every marked part of a state, in whatever containers it comes."""

import flax.serialization
import gradchain
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from gradchain import eval_params
from gradchain.optimizers import lookahead, schedule_free, schedule_free_sgd
from gradchain.training import TrainState

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": {"c": jnp.array([[0.5]])}}


def trained(opt, params=PARAMS, steps=3):
    state = opt.init(params)
    for _ in range(steps):
        updates, state = opt.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.allclose(x, y, rtol=1e-6)


def differ(a, b):
    return [not jnp.allclose(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]


@pytest.mark.parametrize("partition", [optax.partition, gradchain.partition])
def test_all_groups_are_combined(partition):
    def group(rate):
        return schedule_free_sgd(rate)

    labels = {"a": "slow", "b": "fast"}
    params, state = trained(partition({"slow": group(0.1), "fast": group(0.2)}, labels))
    found = eval_params(state, params)
    for key, rate in (("a", 0.1), ("b", 0.2)):
        alone, own = trained(group(rate), {key: PARAMS[key]})
        close({key: params[key]}, alone)
        close({key: found[key]}, eval_params(own, alone))
    assert all(differ(found, params))


@pytest.mark.parametrize("partition", [optax.partition, gradchain.partition])
def test_a_group_without_them_keeps_its_params(partition):
    groups = {"slow": schedule_free_sgd(0.1), "fast": optax.sgd(0.1)}
    params, state = trained(partition(groups, {"a": "slow", "b": "fast"}))
    assert differ(eval_params(state, params), params) == [True, False]


def test_those_of_the_outer_method_hold():
    inner = schedule_free(optax.sgd(0.1), learning_rate=0.1)
    params, state = trained(lookahead(inner, sync_period=2))
    close(eval_params(state, params), state.slow.weights)


def test_untyped_states_keep_their_names():
    params, state = trained(gradchain.chain(optax.clip(9.0), schedule_free_sgd(0.1)))
    expected = eval_params(state, params)
    assert all(differ(expected, params))
    named = flax.serialization.to_state_dict(state)
    written = flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))
    for other in (named, written, {"opt": [written]}, optax.MultiStepsState(0, 0, state, 0, 0)):
        close(eval_params(other, params), expected)
    frozen = eval_params(state, flax.core.freeze(params))
    close(flax.core.unfreeze(frozen), expected)


@pytest.mark.parametrize("state", [1, "state", [PARAMS["a"]], jnp.zeros(3)])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="eval_params"):
        eval_params(state, PARAMS)


def test_weights_of_another_model_are_refused():
    _, state = trained(schedule_free_sgd(0.1))
    with pytest.raises(ValueError, match="b/c"):
        eval_params(state, {"a": PARAMS["a"]})


class Model(nnx.Module):
    def __init__(self):
        self.first = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        self.others = nnx.List([nnx.Linear(3, 1, rngs=nnx.Rngs(1))])


def test_nnx_states_and_optimizers():
    model = Model()
    plain = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, schedule_free_sgd(0.1), wrt=nnx.Param)
    for _ in range(3):
        optimizer.update(model, nnx.state(model, nnx.Param))
    expected, own = trained(schedule_free_sgd(0.1), plain)
    expected = eval_params(own, expected)
    params = nnx.state(model, nnx.Param)
    states = (optimizer, optimizer.opt_state, nnx.state(optimizer))
    for state in (*states, nnx.to_pure_dict(nnx.state(optimizer))):
        found = eval_params(state, params)
        assert isinstance(found, nnx.State)
        close(nnx.to_pure_dict(found), expected)


def test_a_flax_train_state():
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=schedule_free_sgd(0.1))
    for _ in range(3):
        state = state.apply_gradients(grads=state.params)
    params, own = trained(schedule_free_sgd(0.1))
    for container in (state, flax.serialization.to_state_dict(state)):
        close(eval_params(container, state.params), eval_params(own, params))

"""Extra inputs reach the optimizer from both of Flax's training loops."""

import doctest

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state
from gradchain import training
from gradchain.optimizers import sophia_h
from gradchain.training import TrainState, nnx_logits_fn, nnx_value_fn

INPUTS = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
TARGETS = jnp.arange(4.0)[:, None]


def recording(rate=0.1):
    """Gradient descent that keeps what it was given: value, value_fn and curvature at params."""

    def init(params):
        return {"value": jnp.zeros(()), "again": jnp.zeros(()), "curvature": jnp.zeros(())}

    def update(updates, state, params=None, *, value, value_fn, **extra):
        product = jax.jvp(jax.grad(value_fn), (params,), (updates,))[1]
        state = {
            "value": value,
            "again": value_fn(params),
            "curvature": optax.tree.vdot(updates, product),
        }
        return jax.tree.map(lambda g: -rate * g, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def reading(state):
    return {name: float(jnp.asarray(state[name])) for name in ("value", "again", "curvature")}


def linen_state(tx, cls=TrainState, **fields):
    model = linen.Dense(1)
    params = model.init(jax.random.key(0), INPUTS)["params"]
    return cls.create(apply_fn=model.apply, params=params, tx=tx, **fields)


def linen_step(state):
    def value_fn(params):
        return jnp.mean((state.apply_fn({"params": params}, INPUTS) - TARGETS) ** 2)

    value, grads = jax.value_and_grad(value_fn)(state.params)
    return state.apply_gradients(grads=grads, value=value, value_fn=value_fn)


@pytest.mark.parametrize(
    "accumulate",
    [
        lambda tx: optax.MultiSteps(tx, 2),
        lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
        lambda tx: gradchain.chain(optax.MultiSteps(tx, 2), optax.identity()),
        lambda tx: gradchain.chain(optax.MultiSteps(tx, 2).gradient_transformation()),
    ],
)
def test_accumulated_gradients_come_with_their_extras(accumulate):
    before = linen_state(accumulate(sophia_h(0.1)))
    step = jax.jit(linen_step)
    once = step(before)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, once.params, before.params))
    twice = step(once)
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, twice.params, before.params))


@pytest.mark.parametrize("wrap", [lambda step: step, jax.jit], ids=["eager", "jit"])
def test_linen_passes_extras_on(wrap):
    before = linen_state(recording())
    after = wrap(linen_step)(before)
    seen = reading(after.opt_state)
    assert seen["value"] == pytest.approx(seen["again"])
    assert seen["curvature"] > 0
    assert int(after.step) == 1
    assert after.tx is before.tx


def test_linen_equals_flax_where_there_are_no_extras():
    ours = linen_state(optax.adam(0.1))
    theirs = linen_state(optax.adam(0.1), train_state.TrainState)
    grads = jax.tree.map(jnp.ones_like, ours.params)
    for _ in range(3):
        ours = ours.apply_gradients(grads=grads)
        theirs = theirs.apply_gradients(grads=grads)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    jax.tree.map(np.testing.assert_array_equal, ours.opt_state, theirs.opt_state)


def test_linen_keeps_the_structure_from_step_to_step():
    state = linen_state(recording())
    assert jax.tree.structure(linen_step(state)) == jax.tree.structure(state)


def test_linen_still_replaces_fields():
    class WithStatistics(TrainState):
        batch_stats: jax.Array

    state = linen_state(optax.sgd(0.1), WithStatistics, batch_stats=jnp.zeros(2))
    grads = jax.tree.map(jnp.ones_like, state.params)
    state = state.apply_gradients(grads=grads, batch_stats=jnp.ones(2), value=1.0)
    assert isinstance(state, WithStatistics)
    np.testing.assert_array_equal(state.batch_stats, jnp.ones(2))


def test_linen_overwritten_with_gradient_stays_supported():
    key = "_overwrite_with_gradient"
    params = {"params": {"w": jnp.ones(2)}, key: {"scale": jnp.ones(1)}}
    state = TrainState.create(apply_fn=None, params=params, tx=optax.polyak_sgd())
    grads = {"params": {"w": jnp.ones(2)}, key: {"scale": jnp.full(1, 7.0)}}
    after = state.apply_gradients(grads=grads, value=jnp.asarray(1.0))
    np.testing.assert_array_equal(after.params[key]["scale"], jnp.full(1, 7.0))
    np.testing.assert_allclose(after.params["params"]["w"], jnp.full(2, 0.5))


class Regressor(nnx.Module):
    """Parameters, batch statistics and dropout: all three kinds of state a model has."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(self.norm(self.hidden(x))))


def squared_error(model):
    return jnp.mean((model(INPUTS) - TARGETS) ** 2)


def nnx_step(model, optimizer):
    value_fn = nnx_value_fn(model, squared_error)
    value, grads = nnx.value_and_grad(squared_error)(model)
    optimizer.update(model, grads, value=value, value_fn=value_fn)
    return value


@pytest.mark.parametrize("wrap", [lambda step: step, nnx.jit], ids=["eager", "jit"])
def test_nnx_optimizer_passes_extras_on(wrap):
    model = Regressor(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, recording(), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for step in range(1, 4):
        wrap(nnx_step)(model, optimizer)
        seen = reading({name: optimizer.opt_state[name][...] for name in optimizer.opt_state})
        # Equal only if value_fn sees the dropout mask and the statistics that the gradient saw.
        assert seen["value"] == pytest.approx(seen["again"], rel=1e-5)
        assert np.isfinite(seen["curvature"])
        # The model's own random stream moves once a step, whatever value_fn draws.
        assert int(model.dropout.rngs.count[...]) == step
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert not np.array_equal(before["hidden"]["kernel"], after["hidden"]["kernel"])


def test_nnx_value_fn_leaves_the_model_alone():
    model = Regressor(nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.as_pure(nnx.state(model, nnx.Not(nnx.RngKey))))
    value_fn = nnx_value_fn(model, lambda model: (squared_error(model), "aux"), has_aux=True)
    params = nnx.state(model, nnx.Param)
    assert float(value_fn(params)) == float(value_fn(params))
    after = nnx.as_pure(nnx.state(model, nnx.Not(nnx.RngKey)))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_nnx_logits_fn_calls_the_model():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    np.testing.assert_array_equal(nnx_logits_fn(model, INPUTS)(params), model(INPUTS))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, nnx.as_pure(params))
    np.testing.assert_allclose(
        nnx_logits_fn(model, inputs=INPUTS)(doubled), 2 * model(INPUTS), rtol=1e-6
    )


def test_docstrings():
    failed, attempted = doctest.testmod(training, raise_on_error=False)
    assert attempted > 0
    assert failed == 0

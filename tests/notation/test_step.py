"""A step is called once, on signals; what it must not do is an error that says where."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS, gradient, once, run
from gradchain import chain, flow
from gradchain.optimizers import adam
from gradchain.transforms import FlowError, Signal, delay, ema, lift, sqrt, square, where


def test_step_is_called_once_and_symbolically():
    calls = []

    def step(g, params):
        calls.append((g, params))
        return g + params

    opt = flow(step)
    run(opt, steps=3)
    assert len(calls) == 1
    assert all(isinstance(signal, Signal) for signal in calls[0])


def test_the_result_is_an_ordinary_transformation():
    opt = flow(lambda g: 2 * g)
    assert isinstance(opt, optax.GradientTransformationExtraArgs)
    init, update = opt
    g = jnp.arange(3.0)
    assert update(g, init(g))[0].tolist() == [0.0, 2.0, 4.0]


def test_the_name_is_that_of_the_factory_or_the_one_given():
    def shrink():
        return flow(lambda g: g / 2)

    assert shrink().label == "shrink"
    assert flow(lambda g: g, name="other").label == "other"
    with pytest.raises(FlowError, match="name='a b' must be an identifier"):
        flow(lambda g: g, name="a b")


@pytest.mark.parametrize("scalar", [2, 2.0, np.float32(2), np.array(2.0), jnp.array(2.0)])
def test_scalars_on_either_side(scalar):
    """numpy and jax scalars defer to the signal's own operators."""
    g = jnp.array([1.0, 4.0])
    both = {
        (lambda x: scalar + x): 2 + g,
        (lambda x: x + scalar): g + 2,
        (lambda x: scalar - x): 2 - g,
        (lambda x: x - scalar): g - 2,
        (lambda x: scalar * x): 2 * g,
        (lambda x: scalar / x): 2 / g,
        (lambda x: x / scalar): g / 2,
        (lambda x: x**scalar): g**2,
        (lambda x: scalar**x): 2**g,
        (lambda x: where(scalar > x, x, 0)): jnp.where(g < 2, g, 0),
        (lambda x: where(x == scalar - 1, x, 0)): jnp.where(g == 1, g, 0),
        (lambda x: where(~((x > 3) | (x < 0)) & (x > 0), x, 0)): jnp.array([1.0, 0.0]),
        (lambda x: -abs(x) % scalar): -abs(g) % 2,
        (lambda x: x // scalar): g // 2,
    }
    for step, expected in both.items():
        np.testing.assert_allclose(once(flow(step), g), expected)


def test_branching_on_a_signal_is_refused():
    with pytest.raises(FlowError, match="use where"):
        flow(lambda g: g if g > 0 else -g)
    with pytest.raises(FlowError, match="use where"):
        flow(lambda g: (g > 0) and g)


def test_operators_from_the_right():
    g = jnp.array([3.0, 5.0])
    pairs = {
        (lambda x: 7 % x): 7 % g,
        (lambda x: 7 // x): 7 // g,
        (lambda x: +x): g,
        (lambda x: x * (True & (x > 4))): g * (g > 4),
        (lambda x: x * (True | (x > 4))): g,
    }
    for step, expected in pairs.items():
        assert once(flow(step), g).tolist() == expected.tolist()


def test_iterating_over_a_signal_is_refused():
    def step(g):
        first, _ = g
        return first

    with pytest.raises(FlowError, match="cannot be iterated"):
        flow(step)


@pytest.mark.parametrize("value", [None, 1.0, "text", (1, 2)])
def test_a_step_must_return_a_signal(value):
    with pytest.raises(FlowError, match=rf"nothing: .*returned {type(value).__name__}"):
        flow(lambda g: value, name="nothing")


def test_a_step_must_take_the_update_and_name_its_inputs():
    with pytest.raises(FlowError, match="first parameter"):
        flow(lambda: 1)
    with pytest.raises(FlowError, match="must name its inputs"):
        flow(lambda g, *rest: g)
    with pytest.raises(FlowError, match="must name its inputs"):
        flow(lambda g, **rest: g)


def test_a_plain_function_of_arrays_says_to_lift_it():
    with pytest.raises(FlowError, match=r"lift\(jnp.sin\)"):
        flow(lambda g: jnp.sin(g))
    assert once(flow(lambda g: lift(jnp.sin)(g)), jnp.zeros(2)).tolist() == [0.0, 0.0]


def test_signals_exist_only_inside_a_step():
    kept = []
    flow(lambda g: kept.append(g) or g)
    with pytest.raises(FlowError, match="only inside the step"):
        kept[0] + 1
    with pytest.raises(FlowError, match="only inside the step"):
        delay(1.0)


def test_a_signal_of_another_flow_cannot_be_computed():
    kept = []
    flow(lambda g: kept.append(g) or g, name="first")
    stray = flow(lambda g: g + kept[0], name="second")
    with pytest.raises(FlowError, match="signal of another flow"):
        once(stray, jnp.ones(2))


def test_a_hyperparameter_may_be_a_signal_of_the_flow_around():
    """ema(decay) with a decay computed in the step is inlined and sees it."""

    def step(g):
        decay = lift(lambda x: jnp.where(jnp.sum(x) > 0, 0.5, 0.9))(g)
        return g >> ema(decay)

    assert once(flow(step), jnp.ones(2)).tolist() == [0.5, 0.5]


def test_sending_into_something_else_is_refused():
    with pytest.raises(FlowError, match="cannot be sent"):
        flow(lambda g: g >> 3)


def test_an_error_at_run_time_names_method_node_and_line():
    def step(g):
        return g @ g if False else lift(lambda x: x @ jnp.ones((7, 7)), "turn")(g)

    line = step.__code__.co_firstlineno + 1
    opt = flow(step, name="mine")
    with pytest.raises(FlowError, match=rf"mine: at `turn` \(test_step.py:{line}\): leaf \['a'\]"):
        once(opt, PARAMS)


def test_an_error_inside_an_inner_flow_names_the_line_that_made_the_node():
    bad = flow(lambda g: g + lift(lambda x: jnp.ones(9))(g), name="bad")
    with pytest.raises(FlowError, match=r"outer: at `\+` \(test_step.py:\d+\)"):
        once(flow(lambda g: g >> bad, name="outer"), PARAMS)


def test_the_update_must_fit_the_params():
    grown = flow(lambda g: lift(lambda x: jnp.stack([x, x]))(g), name="grown")
    with pytest.raises(FlowError, match=r"grown: the update of leaf \['a'\] has shape \(2, 3\)"):
        once(grown, PARAMS)
    shrunk = flow(lambda g: lift(lambda x: jnp.sum(x))(g) * 1.0, name="shrunk")
    with pytest.raises(FlowError, match="has shape"):
        once(shrunk, PARAMS)


def test_a_scalar_is_not_an_update():
    opt = flow(lambda g, value: value * 2.0, name="loss")
    with pytest.raises(FlowError, match="a scalar instead of a tree"):
        once(opt, PARAMS, value=1.0)


def test_params_and_updates_must_be_the_same_tree():
    opt = adam(0.1)
    state = opt.init(PARAMS)
    with pytest.raises(FlowError, match="adam: params and updates are different trees"):
        opt.update(PARAMS, state, {"a": PARAMS["a"]})
    with pytest.raises(FlowError, match=r"adam: updates and params differ at leaf \['a'\]"):
        opt.update(PARAMS, state, {**PARAMS, "a": jnp.ones(7)})


def test_a_state_of_another_transformation_is_refused():
    state = chain(ema(0.9)).init(PARAMS)
    with pytest.raises(FlowError, match="another transformation"):
        adam(0.1).update(PARAMS, state, PARAMS)
    other = adam(0.1).init({"z": jnp.ones(2)})
    with pytest.raises(FlowError, match="another tree"):
        adam(0.1).update(PARAMS, other, PARAMS)


@pytest.mark.parametrize("bad", [jnp.ones(2, jnp.int32), np.ones(2, bool)])
def test_integer_params_are_refused_with_their_path(bad):
    with pytest.raises(FlowError, match=r"\['n'\]\['x'\] is (int|bool)"):
        adam(0.1).init({"n": {"x": bad}, "w": jnp.ones(2)})


def test_a_python_integer_is_carried_along_and_refused_with_a_gradient():
    params = {"n": {"x": 1}, "w": jnp.ones(2)}
    opt = adam(0.1)
    state = opt.init(params)
    updates, _ = opt.update({"n": {"x": None}, "w": jnp.ones(2)}, state, params)
    assert updates["n"]["x"] is None
    with pytest.raises(FlowError, match=r"\['n'\]\['x'\] is int"):
        opt.update({"n": {"x": 1.0}, "w": jnp.ones(2)}, state, params)


def test_python_floats_are_leaves():
    opt = flow(lambda g: 2 * g)
    assert float(once(opt, {"x": 1.5})["x"]) == 3.0


def test_leaves_may_change_within_and_dtype_returns():
    """A step may compute in any dtype; the update comes out in that of the params."""
    opt = flow(lambda g: sqrt(square(g)) * np.float64(0.5))
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    out = once(opt, gradient(1, low), low)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(jnp.bfloat16)}

"""A step names the inputs it needs; a missing one is an error that says how to pass it."""

import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS, close, once
from gradchain import chain, flow, needs
from gradchain.transforms import FlowError, decay_weights, every, lift_tree


def polyak():
    return flow(lambda g, value: value * g, name="polyak")


def test_needs_can_be_asked_for():
    assert needs(flow(lambda g: g)) == ()
    assert needs(polyak()) == ("value",)
    assert polyak().needs == ("value",)
    assert needs(optax.sgd(0.1)) == ()


def test_needs_come_from_everything_inside_params_first():
    inner = flow(lambda g, value_fn, params: g + params * value_fn)
    assert needs(chain(polyak(), inner)) == ("params", "value", "value_fn")
    held = flow(lambda g: g >> every(2, inner))
    assert needs(held) == ("params", "value_fn")


def test_a_missing_input_is_named_with_the_call_that_passes_it():
    opt = chain(optax.identity(), polyak())
    state = opt.init(PARAMS)
    with pytest.raises(ValueError, match=r"chain: polyak needs `value` .*update\(.*value=\.\.\.\)"):
        opt.update(PARAMS, state, PARAMS)
    decayed = chain(decay_weights(0.1))
    with pytest.raises(
        ValueError, match=r"decay_weights needs `params` .*update\(grads, state, params\)"
    ):
        decayed.update(PARAMS, decayed.init(PARAMS))


def test_a_missing_input_of_an_inner_method_is_told_with_the_outer_one():
    held = flow(lambda g: g >> every(2, polyak()), name="held")
    with pytest.raises(ValueError, match="held: polyak needs `value`"):
        held.update(PARAMS, held.init(PARAMS), PARAMS)


def test_an_input_is_found_by_the_name_of_the_parameter():
    opt = flow(lambda g, temperature: g * temperature)
    close(once(opt, PARAMS, temperature=jnp.asarray(2.0)), once(flow(lambda g: 2 * g), PARAMS))


def test_a_tree_input_becomes_leaves():
    opt = flow(lambda g, previous_grads: g - previous_grads)
    close(once(opt, PARAMS, previous_grads=PARAMS), once(flow(lambda g: 0 * g), PARAMS))


def test_an_optional_input_may_be_absent():
    either = lift_tree(lambda g, x: g if x is None else x, "either", out=0)
    opt = flow(lambda g, hint=None: either(g, hint))
    assert needs(opt) == ()
    assert once(opt, jnp.ones(2)).tolist() == [1.0, 1.0]
    assert once(opt, jnp.ones(2), hint=jnp.zeros(2)).tolist() == [0.0, 0.0]


def test_an_input_is_required_if_any_part_requires_it():
    opt = chain(flow(lambda g, value=None: g), polyak())
    assert needs(opt) == ("value",)
    with pytest.raises(ValueError, match="value"):
        once(opt, PARAMS)


def test_value_must_be_a_scalar():
    with pytest.raises(FlowError, match="scalar loss"):
        once(polyak(), PARAMS, value=jnp.ones(3))


def test_unknown_extras_are_ignored():
    close(once(flow(lambda g: g), PARAMS, nonsense=object()), PARAMS)

"""Errors of a step say what to write instead, and point at the user's line."""

import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS
from gradchain import flow
from gradchain.optimizers import adabelief
from gradchain.transforms import FlowError, delay, ema, global_norm, leaf_mean, lift, polar_factor


def polar(x):
    u, _, v = jnp.linalg.svd(x, full_matrices=False)
    return u @ v


def scaled_by_width(x):
    return x / x.shape[0]


def with_root(g):
    return jnp.sqrt(g) >> ema(0.9)


ARRAY_FUNCTIONS = {
    "use sqrt of gradchain.transforms": [
        lambda g: jnp.sqrt(g),
        lambda g: jnp.sqrt(2 * g),
        lambda g: np.sqrt(g),
        lambda g: math.sqrt(g),
        with_root,
    ],
    "leaf_norm(g) or global_norm(g)": [lambda g: jnp.linalg.norm(g), lambda g: np.linalg.norm(g)],
    "use global_norm of gradchain.transforms": [lambda g: optax.global_norm(g)],
    "leaf_sum(g) or global_sum(g)": [lambda g: sum(g), lambda g: g.sum(), lambda g: jnp.sum(g)],
    "maximum(a, b)": [lambda g: max(g, 0.0)],
    "or lift(polar) around it": [lambda g: polar(g)],
    "or lift(scaled_by_width) around it": [lambda g: scaled_by_width(g)],
    "lift(polar_factor)": [lambda g: polar_factor(g)],
    "lift(jax.nn.relu)": [lambda g: jax.nn.relu(g)],
    "lift(fn)(g)": [lambda g: jax.tree.map(jnp.sqrt, g), lambda g: jnp.asarray(g)],
    "in which x is an array": [lambda g: g * g.shape[0], lambda g: g.dtype],
    "lift(lambda x: x.astype ...)": [lambda g: g.astype(jnp.float32)],
    "either(condition, a, b)": [lambda g: jax.lax.cond(True, lambda: g, lambda: g)],
}


@pytest.mark.parametrize(
    ("step", "advice"),
    [(step, advice) for advice, steps in ARRAY_FUNCTIONS.items() for step in steps],
)
def test_what_to_use_instead_of_a_function_of_arrays(step, advice):
    with pytest.raises(FlowError, match=re.escape(advice)):
        flow(step, name="mine")


def test_the_expression_and_its_line_are_shown():
    line = sys._getframe().f_lineno + 2
    with pytest.raises(FlowError) as caught:
        flow(lambda g: 2 * jnp.tanh(g + 1), name="mine")
    assert f"mine: `jnp.tanh(g + 1)` (test_advice.py:{line})" in str(caught.value)


def test_so_is_the_line_of_what_is_no_call():
    line = sys._getframe().f_lineno + 2
    with pytest.raises(FlowError) as caught:
        flow(lambda g: g if g > 0 else -g, name="mine")
    assert str(caught.value).startswith("mine: `>` has no truth value")
    assert str(caught.value).endswith(f"(test_advice.py:{line})")


def helper(g, factor):
    return factor * g


def test_other_faults_are_left_alone():
    """A wrong call, or an error that has nothing to do with signals."""
    with pytest.raises(FlowError, match=r"missing 1 required positional argument: 'factor'$"):
        flow(lambda g: helper(g))
    with pytest.raises(KeyError):
        flow(lambda g: g * {}["factor"])
    with pytest.raises(ZeroDivisionError):
        flow(lambda g: helper(g, 1 / 0))
    with pytest.raises(FlowError, match="ema: decay=2"):
        flow(lambda g: g >> ema(2))


def test_hasattr_and_getattr_of_what_a_signal_has_not():
    def step(g):
        assert not hasattr(g, "shape")
        assert getattr(g, "ndim", None) is None
        return g

    flow(step)


def stores_a_comparison(g):
    n = delay(g)
    _ = n << g > 3
    return g


def stores_one_of_two(g):
    flag = delay(g > 0)
    flag << (g > 1) | (g < -1)
    return g


def stores_a_part(g):
    flag = delay(g > 0)
    flag << (g > 1) & (g < -1)
    return g


def stores_over_two_lines(g):
    n = delay(g)
    # fmt: off
    _ = n << (g + 1) == (
        g)
    # fmt: on
    return g


@pytest.mark.parametrize(
    ("step", "written"),
    [
        (stores_a_comparison, "n << (g > 3)"),
        (stores_one_of_two, "flag << ((g > 1) | (g < -1))"),
        (stores_a_part, "flag << ((g > 1) & (g < -1))"),
        (stores_over_two_lines, "n << ((g + 1) == ( g))"),
    ],
)
def test_what_binds_looser_than_the_shift_needs_parentheses(step, written):
    with pytest.raises(FlowError, match=re.escape(f"write `{written}`")):
        flow(step)


def test_with_parentheses_or_on_its_own_the_comparison_is_meant():
    def step(g):
        n, m = delay(g), delay(g)
        value = n << 0.5 * n + g
        large = value > 1
        other = (m << g) > 2
        return g * (large & other) * (value < 3)

    opt = flow(step)
    out, state = opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))
    assert state[0].tolist() == [3.0]
    assert out.tolist() == [0.0]


def test_sites_are_the_users_line_never_ours():
    """Of nodes that a primitive or a method made as well: the line on which it was asked for."""
    line = sys._getframe().f_lineno + 1
    opt = adabelief(1e-3)
    sites = {node.site for node in opt.graph.nodes}
    assert sites == {f"test_advice.py:{line}"}


WRONG = {
    "a scalar": lambda g: global_norm(g),
    "has shape": lambda g: leaf_mean(g, axis=0),
    r"\['b'\]\['c'\] has shape \(4,\), the parameter \(2, 2\)": lambda g: lift(jnp.ravel)(g),
}


@pytest.mark.parametrize("message", WRONG)
def test_an_output_of_the_wrong_shape_fails_in_init(message):
    with pytest.raises(FlowError, match=message):
        flow(WRONG[message], name="mine").init(PARAMS)


def test_a_wrong_shape_in_a_delay_fails_in_init():
    def step(g):
        past = delay(g, name="past")
        past << lift(jnp.ravel)(g)
        return past

    with pytest.raises(FlowError, match=r"mine: at `past` .*holds shape \(2, 2\), written \(4,\)"):
        flow(step, name="mine").init(PARAMS)


def test_shapes_of_which_one_is_wrong_are_all_looked_at():
    """Square matrices do not stand in for others."""
    opt = flow(lambda g: lift(jnp.transpose)(g))
    opt.init({"a": jnp.ones((2, 2)), "b": jnp.ones((3, 3))})
    with pytest.raises(FlowError, match=r"\['c'\] has shape \(3, 2\), the parameter \(2, 3\)"):
        opt.init({"a": jnp.ones((2, 2)), "b": jnp.ones((3, 3)), "c": jnp.ones((2, 3))})

"""Random trees, precisions, gradients and stacks of wrappers, on any method.

The suite runs a few examples of each property, the same every time; by hand there are many, new
ones each time: `pytest -m by_hand tests/catalogue/test_properties.py`.
"""

from dataclasses import dataclass
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import sample
from subjects import NAMES, extras_for, finite, gradients, same, signature_of, small_tree

SHAPES = [(), (1,), (0,), (3,), (2, 3), (1, 5), (64, 1), (1, 300), (2, 0), (2, 1, 3)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
OF_LAYERS = [n for n in NAMES if "layer_inputs" in sample(n).needs]
"""Methods that look for layers in the params, and so do not take any tree."""
OF_TREES = [name for name in NAMES if name not in OF_LAYERS]

QUICK = settings(
    max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


def in_both_profiles(strategies: dict[str, Any], check: Any) -> tuple[Any, Any]:
    """The property in its short and in its long profile."""
    short = QUICK(given(**strategies)(check))
    long = pytest.mark.by_hand(LONG(given(**strategies)(check)))
    return short, long


@jax.tree_util.register_dataclass
@dataclass
class Block:
    """A dataclass among the containers."""

    first: Any
    second: Any


def trees(dtype: Any) -> Any:
    """Params in any containers, with gaps."""
    arrays = st.sampled_from(SHAPES).map(lambda shape: jnp.full(shape, 0.5, dtype))
    leaves = st.one_of(arrays, arrays, arrays, st.sampled_from([None, optax.MaskedNode()]))
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
            st.lists(inner, min_size=1, max_size=3),
            st.tuples(inner, inner),
            st.builds(Block, inner, inner),
        ),
        max_leaves=5,
    )
    modules = st.dictionaries(st.sampled_from("abc"), arrays, min_size=1).map(nnx.State)
    return st.one_of(nested, nested, modules).filter(lambda tree: bool(jax.tree.leaves(tree)))


params_of_any_kind = st.sampled_from(DTYPES).flatmap(trees)


def any_tree(name: str, params: Any) -> None:
    """Structure, shapes and dtypes of params and state are stable on every tree."""
    opt = sample(name)
    state = jax.eval_shape(opt.init, params)
    extras = extras_for(opt, params)
    updates, after = jax.eval_shape(
        lambda g, s, p: opt.update(g, s, p, **extras), gradients(params), state, params
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert signature_of(updates) == signature_of(params)
    assert signature_of(after) == signature_of(state)


test_any_tree, test_any_tree_long = in_both_profiles(
    {"name": st.sampled_from(OF_TREES), "params": params_of_any_kind}, any_tree
)


def everywhere(value: Any) -> Any:
    """A function from params to a tree of the same value."""
    return lambda params: jax.tree.map(lambda _: value, params)


WRAPPERS = {
    "MultiSteps": lambda opt: optax.MultiSteps(opt, 2).gradient_transformation(),
    "masked": lambda opt: optax.masked(opt, lambda params: jax.tree.map(lambda _: True, params)),
    "partition": lambda opt: gradchain.partition(
        {"all": opt}, lambda p: jax.tree.map(lambda _: "all", p)
    ),
    "cautious": gradchain.optimizers.cautious,
    "chain": lambda opt: gradchain.chain(optax.clip(1.0), opt),
}


def any_gradient(name: str, wrappers: list[str], broken: float) -> None:
    """A gradient that is not finite changes nothing under `apply_if_finite`."""
    inner = sample(name)
    for wrapper in wrappers:
        inner = WRAPPERS[wrapper](inner)
    opt = optax.apply_if_finite(inner, 5)
    params = small_tree()
    extras = extras_for(sample(name), params)
    update = jax.jit(lambda g, s, p: opt.update(g, s, p, **extras))
    good = gradients(params)
    bad = {**good, "w": good["w"].at[1, 1].set(broken)}
    _, state = update(good, opt.init(params), params)
    updates, after = update(bad, state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert same(after.inner_state, state.inner_state)
    updates, _ = update(good, after, params)
    assert finite(updates)


# a closure wants all params: under Optax's own masks a method that takes one has no room
WRAPPABLE = [name for name in NAMES if not {"value_fn", "layer_inputs"} & set(sample(name).needs)]
test_a_broken_gradient, test_a_broken_gradient_long = in_both_profiles(
    {
        "name": st.sampled_from(WRAPPABLE),
        "wrappers": st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=2, unique=True),
        "broken": st.sampled_from([np.nan, np.inf, -np.inf]),
    },
    any_gradient,
)

"""Random trees, precisions, gradients and stacks of wrappers, on any method.

The suite runs a few examples of each property, the same every time; by hand there are many, new
ones each time: `pytest -m by_hand tests/catalogue/test_properties.py`.
"""

import os
from dataclasses import dataclass
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gradchain.catalogue import METHODS
from gradchain.transforms import Interval
from gradchain.transforms.notation.arguments import arguments_of as typed_arguments_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import needs_of, sample
from subjects import (
    NAMES,
    extras_for,
    finite,
    gradients,
    same,
    signature_of,
    small_tree,
    step_of,
)

SHAPES = [(), (1,), (0,), (3,), (2, 3), (1, 5), (64, 1), (1, 300), (2, 0), (2, 1, 3), (3, 5000)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
OF_LAYERS = [n for n in NAMES if "layer_inputs" in needs_of(n)]
"""Methods that look for layers in the params, and so do not take any tree."""
OF_TREES = [name for name in NAMES if name not in OF_LAYERS]

QUICK = settings(
    max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(
    max_examples=int(os.environ.get("EXAMPLES", "1000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


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


def ends_of(name: str) -> list[tuple[str, float]]:
    """The closed ends of the intervals of a method's arguments."""
    found = typed_arguments_of(METHODS[name].factory).values()
    intervals = [(a.name, d) for a in found for d in a.domains if isinstance(d, Interval)]
    lows = [(n, d.low) for n, d in intervals if not d.low_open and np.isfinite(d.low)]
    highs = [(n, d.high) for n, d in intervals if not d.high_open and np.isfinite(d.high)]
    whole = {n for n, d in intervals if d.integer}
    return [(n, int(end) if n in whole else end) for n, end in [*lows, *highs]]


ENDS = [(name, *end) for name in OF_TREES for end in ends_of(name)]


def at_an_end(end: tuple[str, str, float]) -> None:
    """A number at the end of its interval makes a step, or is refused by name."""
    name, argument, value = end
    params = small_tree()
    try:
        opt = sample(name, **{argument: value})
    except ValueError as error:
        if argument in str(error):
            return
        raise
    state = jax.eval_shape(opt.init, params)
    found, after = jax.eval_shape(step_of(opt), params, state)
    assert signature_of((found, after)) == signature_of((params, state))


test_numbers_at_an_end, test_numbers_at_an_end_long = in_both_profiles(
    {"end": st.sampled_from(ENDS)}, at_an_end
)


def with_extra_inputs(steps: optax.MultiSteps) -> optax.GradientTransformationExtraArgs:
    """`gradient_transformation()` of Optax's wrapper would take none."""
    return optax.GradientTransformationExtraArgs(steps.init, steps.update)


WRAPPERS = {
    "MultiSteps": lambda opt: with_extra_inputs(optax.MultiSteps(opt, 2)),
    "masked": lambda opt: optax.masked(opt, lambda params: jax.tree.map(lambda _: True, params)),
    "partition": lambda opt: gradchain.partition(
        {"all": opt}, lambda p: jax.tree.map(lambda _: "all", p)
    ),
    "cautious": gradchain.optimizers.cautious,
    "accumulate": lambda opt: gradchain.transforms.control.accumulate(opt, 2),
    "chain": lambda opt: gradchain.chain(optax.clip(1.0), opt),
    "every": lambda opt: gradchain.transforms.every(2, opt),
    "weight_prediction": gradchain.optimizers.weight_prediction,
    "reset_every": lambda opt: gradchain.transforms.reset_every(2, opt),
}


def any_gradient(name: str, wrappers: list[str], aggregator: str | None, broken: float) -> None:
    """A gradient that is not finite changes nothing under `apply_if_finite`.

    With an aggregator in front it is one of three that are stacked.
    """
    inner = sample(name)
    for wrapper in wrappers:
        inner = WRAPPERS[wrapper](inner)
    in_front = METHODS[aggregator].build() if aggregator else optax.identity()
    opt = optax.chain(in_front, optax.apply_if_finite(inner, 5))
    params = small_tree()
    extras = extras_for(sample(name), params)
    update = jax.jit(lambda g, s, p: opt.update(g, s, p, **extras))
    good, at = gradients(params), (1, 1)
    if aggregator:
        good = jax.tree.map(lambda g: jnp.stack([g, 0.5 * g, jnp.flip(g)]), good)
        at = (1, 1, 1)
    bad = {**good, "w": good["w"].at[at].set(broken)}
    _, state = update(good, opt.init(params), params)
    updates, after = update(bad, state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert same(after[1].inner_state, state[1].inner_state)
    updates, _ = update(good, after, params)
    assert finite(updates)


AGGREGATORS = sorted(
    name
    for name, entry in METHODS.items()
    if entry.kind == "aggregator" and not entry.wraps and not entry.required
)
# a closure wants all params: under Optax's own masks a method that takes one has no room
CLOSURES = {"value_fn", "value_fns", "layer_inputs"}
WRAPPABLE = [name for name in NAMES if not CLOSURES & set(needs_of(name))]
test_a_broken_gradient, test_a_broken_gradient_long = in_both_profiles(
    {
        "name": st.sampled_from(WRAPPABLE),
        "wrappers": st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=3, unique=True),
        "aggregator": st.sampled_from([None, *AGGREGATORS]),
        "broken": st.sampled_from([np.nan, np.inf, -np.inf]),
    },
    any_gradient,
)

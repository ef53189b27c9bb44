"""Signals are trees or scalars: leaf by leaf, over whole leaves, over whole trees, and in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS, close, gradient, once, run
from gradchain import flow, named
from gradchain.transforms import (
    FlowError,
    clip,
    delay,
    divide_or_zero,
    ema,
    global_dot,
    global_max,
    global_mean,
    global_norm,
    global_sum,
    leaf_dot,
    leaf_max,
    leaf_mean,
    leaf_norm,
    leaf_rms,
    leaf_sum,
    leaf_where,
    lift,
    lift_tree,
    maximum,
    merge,
    minimum,
    sign,
    split,
    sqrt,
    square,
    tap,
    transpose,
    where,
)
from gradchain.transforms.notation import (
    global_size,
    leaf_size,
    matrices,
    reduce_leaves,
)

FLAT = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(PARAMS)])


def scalar(fn):
    """A scalar signal, read off a flow that multiplies ones by it."""
    out = once(flow(lambda g: 0 * g + fn(g)), PARAMS)
    return float(out["a"][0])


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (global_norm, np.linalg.norm(FLAT)),
        (global_sum, FLAT.sum()),
        (global_mean, FLAT.mean()),
        (global_max, FLAT.max()),
        (global_size, FLAT.size),
        (lambda g: global_dot(g, 2 * g), 2 * FLAT @ FLAT),
        (reduce_leaves(lambda x: jnp.sum(x**4), "fourth"), np.sum(FLAT**4)),
    ],
)
def test_reductions_of_whole_trees(fn, expected):
    assert scalar(fn) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (leaf_norm, np.linalg.norm),
        (leaf_sum, np.sum),
        (leaf_mean, np.mean),
        (leaf_max, np.max),
        (leaf_size, np.size),
        (leaf_rms, lambda x: np.sqrt(np.mean(x**2))),
        (lambda g: leaf_dot(g, 3 * g), lambda x: 3 * np.sum(x * x)),
    ],
)
def test_reductions_of_leaves_broadcast_back(fn, expected):
    out = once(flow(lambda g: 0 * g + fn(g)), PARAMS)
    wanted = jax.tree.map(lambda x: np.full(x.shape, expected(np.asarray(x)), np.float32), PARAMS)
    close(out, wanted)


def test_functions_are_those_of_numpy():
    x = PARAMS["a"]
    assert once(flow(lambda g: maximum(g, 0.5)), x).tolist() == [1.0, 0.5, 3.0]
    assert once(flow(lambda g: minimum(g, g * g)), x).tolist() == [1.0, -2.0, 3.0]
    assert once(flow(lambda g: clip(g, -1, 1) + sign(g)), x).tolist() == [2.0, -2.0, 2.0]
    assert once(flow(lambda g: sqrt(square(g))), x).tolist() == [1.0, 2.0, 3.0]
    assert once(flow(lambda g: divide_or_zero(g, maximum(g, 0))), x).tolist() == [1.0, 0.0, 1.0]
    assert once(flow(lambda g: where(g > 0, g, -7)), x).tolist() == [1.0, -7.0, 3.0]


def test_square_of_a_complex_signal_is_real():
    z = jnp.array([3 + 4j])
    assert once(flow(lambda g: g * square(g)), z).tolist() == [75 + 100j]


def test_a_signal_can_be_sent_through_a_lifted_function():
    assert once(flow(lambda g: g * 2 >> sqrt), jnp.array([8.0])).tolist() == [4.0]


def test_a_leaf_may_be_a_tuple_or_a_dataclass():
    """Factors of another shape travel as one leaf, through delays and named states too."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Factors:
        left: object
        right: object

    halves = lift(lambda x: Factors(x @ x.T, x.T @ x), "halves")
    joined = lift(lambda f, x: f.left @ x @ f.right, "joined")
    added = lift(lambda f, h: jax.tree.map(jnp.add, f, h), "added")
    weighted = lift(lambda f, w: jax.tree.map(lambda y: w * y, f), "weighted")

    def step(g):
        factors = delay(halves(g), name="factors")
        new = factors << added(weighted(factors, 0.5), halves(g))
        return joined(new, g)

    params = {"w": jnp.arange(6.0).reshape(2, 3)}
    outs, state = run(flow(step), steps=2, params=params)
    g1, g2 = (np.asarray(gradient(t, params)["w"]) for t in (1, 2))
    left = 0.5 * g1 @ g1.T + g2 @ g2.T
    right = 0.5 * g1.T @ g1 + g2.T @ g2
    np.testing.assert_allclose(state.factors["w"].left, left, rtol=1e-5)
    np.testing.assert_allclose(outs[1]["w"], left @ g2 @ right, rtol=1e-4)


def test_whole_tree_functions_get_leaves():
    def centre(tree):
        mean = sum(jnp.sum(x) for x in tree.values) / sum(x.size for x in tree.values)
        return tree.map(lambda x: x - mean)

    out = once(flow(lambda g: lift_tree(centre)(g)), PARAMS)
    close(out, jax.tree.map(lambda x: x - FLAT.mean(), PARAMS), rtol=1e-5)


def test_signals_of_different_structure_do_not_meet():
    def step(g, batch):
        return g + batch

    with pytest.raises(FlowError, match=r"`\+`"):
        once(flow(step), PARAMS, batch={"other": jnp.ones(3)})


class TestParts:
    """split and merge."""

    def test_each_part_goes_its_own_way(self):
        def step(g):
            wide, others = split(g, matrices)
            return merge(2 * wide, others * 3)

        out = once(flow(step), PARAMS)
        close(out, {"a": 3 * PARAMS["a"], "b": {"c": 2 * PARAMS["b"]["c"]}})

    @pytest.mark.parametrize(
        "selector",
        [
            leaf_where(lambda x: x.ndim == 1),
            {"a": True, "b": {"c": False}},
            lambda params: jax.tree.map(lambda x: x.size == 3, params),
            {"a": True, "b": False},
        ],
    )
    def test_selectors(self, selector):
        def step(g):
            chosen, others = split(g, selector)
            return merge(-chosen, others)

        close(once(flow(step), PARAMS), {"a": -PARAMS["a"], "b": PARAMS["b"]})

    def test_state_is_kept_for_the_leaves_of_the_part_alone(self):
        def step(g):
            wide, others = split(g, matrices)
            return merge(wide >> named("wide", ema(0.9)), others >> optax.trace(0.9))

        state = flow(step).init(PARAMS)
        assert isinstance(state.wide["a"], optax.MaskedNode)
        assert isinstance(state.trace.trace["b"]["c"], optax.MaskedNode)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == FLAT.size

    def test_a_reduction_sees_the_part_alone(self):
        def step(g):
            wide, others = split(g, matrices)
            return merge(0 * wide + global_norm(wide), 0 * others + global_norm(others))

        out = once(flow(step), PARAMS)
        assert float(out["a"][0]) == pytest.approx(float(jnp.linalg.norm(PARAMS["a"])))
        assert float(out["b"]["c"][0, 0]) == pytest.approx(float(jnp.linalg.norm(PARAMS["b"]["c"])))

    def test_an_empty_part_is_harmless(self):
        def step(g):
            none, others = split(g, lambda params: jax.tree.map(lambda x: False, params))
            tap("norm", global_norm(none) + global_max(none))
            return merge(none >> ema(0.9), others)

        close(once(flow(step), PARAMS), PARAMS)

    def test_what_is_not_merged_again_is_an_error(self):
        with pytest.raises(FlowError, match=r"nothing for leaf \['a'\].*merge"):
            once(flow(lambda g: split(g, matrices)[0]), PARAMS)

    def test_a_mask_must_be_of_booleans(self):
        """Also one that a function makes of the params."""
        numbers = {"a": 1.0, "b": {"c": 0.0}}
        with pytest.raises(FlowError, match=r"split: select=.* must be a tree of booleans"):
            flow(lambda g: merge(*split(g, numbers)))
        with pytest.raises(FlowError, match="tree of Python booleans"):
            once(flow(lambda g: merge(*split(g, lambda params: numbers))), PARAMS)

    def test_shapes_may_change_within_a_part(self):
        def step(g):
            wide, others = split(g, matrices)
            return merge(transpose(transpose(wide) >> ema(0.0)), others)

        close(once(flow(step), PARAMS), PARAMS)

"""What every aggregator must do: a rule that makes one gradient of several, stacked."""

import functools

import chex
import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.catalogue import METHODS
from subjects import strict

RULES = sorted(name for name, entry in METHODS.items() if entry.kind == "aggregator")
ORDERED = {"pcgrad", "random_weighting"}
"""Rules whose draws belong to the numbers of the objectives."""
THRESHOLDS = {"cagrad", "dualproj", "upgrad"}
"""Rules for which gradients below a length count as zero."""
LENGTHLESS = {"nash_mtl"}
"""Rules whose result has a length of its own."""
ALONG_EACH = {"config", "nash_mtl", "pcgrad", "random_weighting", "weighted_sum"}
"""Rules whose result is affine in the length of each gradient: its direction counts at any."""
HARMLESS = {
    "config": {},
    "dualproj": {"reg_eps": 0.0},
    "mgda": {"solver": "exact"},
    "nash_mtl": {},
    "upgrad": {"reg_eps": 0.0},
}
"""Rules that promise not to harm any objective, to first order, where gradients are independent."""

every_rule = pytest.mark.parametrize("name", RULES)


def build(name, **arguments):
    return getattr(gradchain.optimizers, name)(**arguments)


def like(dtype=jnp.float32):
    """The params: a matrix, a vector and a scalar."""
    return {"w": jnp.zeros((4, 3), dtype), "b": jnp.zeros(3, dtype), "s": jnp.zeros((), dtype)}


def stacked(count, dtype=jnp.float32, seed=0):
    """Gradients of so many objectives, some of which conflict."""
    keys = iter(jax.random.split(jax.random.key(seed), 3))
    draw = functools.partial(jax.random.normal, dtype=jnp.result_type(float))
    return jax.tree.map(lambda x: draw(next(keys), (count, *x.shape)).astype(dtype), like())


def matrix(tree, lead=1):
    """The rows of a tree of stacked gradients, or its one row."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(*x.shape[:lead], -1) for x in leaves], axis=lead)


def first_row_times(gradients, factor):
    return jax.tree.map(lambda x: x.at[0].multiply(factor), gradients)


@functools.cache
def compiled(name, arguments=()):
    """The rule's first step, which the tests of one rule share."""
    rule = build(name, **dict(arguments))
    return jax.jit(lambda g, p: rule.update(g, rule.init(p), p)[0])


def aggregate(name, gradients, **arguments):
    """What the rule makes of gradients at its first step."""
    params = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), gradients)
    return compiled(name, tuple(arguments.items()))(gradients, params)


@every_rule
def test_more_objectives_than_params(name):
    """Finite, and shaped like one gradient; nothing is promoted or broadcast silently."""
    rule, params = build(name), like()
    with strict():
        jax.eval_shape(lambda g: rule.update(g, rule.init(params), params)[0], stacked(32))
    one = aggregate(name, stacked(32))
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, like())
    assert np.isfinite(matrix(one, 0)).all()
    assert np.abs(matrix(one, 0)).max() > 0


@every_rule
def test_one_objective(name):
    """The gradient itself, or where the rule says so, a multiple of it."""
    gradient = jax.tree.map(lambda x: 3 * x, stacked(1))
    row = matrix(gradient)[0]
    factor = {"cagrad": 1.5, "nash_mtl": 1 / np.linalg.norm(row)}.get(name, 1.0)
    np.testing.assert_allclose(matrix(aggregate(name, gradient), 0), factor * row, rtol=2e-4)


@every_rule
def test_no_gradient_at_all(name):
    """All rows zero: nothing moves."""
    nothing = jax.tree.map(jnp.zeros_like, stacked(3))
    assert (matrix(aggregate(name, nothing), 0) == 0).all()


@every_rule
def test_a_row_of_zeros(name):
    """An objective without gradient: no NaN, and the answer that the docstring gives."""
    two = stacked(2, seed=3)
    three = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x[:1])]), two)
    found, without = matrix(aggregate(name, three), 0), matrix(aggregate(name, two), 0)
    assert np.isfinite(found).all()
    if name in ("mgda", "cagrad"):
        np.testing.assert_allclose(found, 0, atol=2e-4)
    elif name in ("upgrad", "dualproj", "weighted_sum", "aligned_mtl"):  # weights 1/m
        np.testing.assert_allclose(found, without * 2 / 3, rtol=1e-3, atol=1e-5)
    elif name in ("pcgrad", "config", "imtl_g"):
        np.testing.assert_allclose(found, without, rtol=1e-3, atol=1e-5)
    elif name == "nash_mtl":  # no bargain: the weights are those of the start, 1, then clipped
        total = matrix(two).sum(0)
        np.testing.assert_allclose(found, total / np.linalg.norm(total), rtol=1e-4, atol=1e-6)


@every_rule
def test_opposite_directions(name):
    """Two gradients of which one is the other's negative: finite, and zero where that is said."""
    g = stacked(1, seed=5)
    found = matrix(aggregate(name, jax.tree.map(lambda x: jnp.concatenate([x, -x]), g)), 0)
    assert np.isfinite(found).all()
    if name not in ("graddrop", "random_weighting"):
        np.testing.assert_allclose(found, 0, atol=1e-3)


@every_rule
def test_opposite_directions_of_unequal_lengths(name):
    """Nobody can gain: whoever promises no harm stays, and nothing is NaN."""
    g = stacked(1, seed=5)
    found = matrix(aggregate(name, jax.tree.map(lambda x: jnp.concatenate([x, -3 * x]), g)), 0)
    assert np.isfinite(found).all()
    if name in ("upgrad", "dualproj", "mgda", "config", "pcgrad"):
        np.testing.assert_allclose(found, 0, atol=5e-3)


@pytest.mark.parametrize("name", sorted(set(RULES) - ORDERED))
def test_the_numbers_of_the_objectives_do_not_matter(name):
    gradients, order = stacked(3, seed=4), jnp.array([2, 0, 1])
    shuffled = jax.tree.map(lambda x: x[order], gradients)
    found, expected = aggregate(name, shuffled), aggregate(name, gradients)
    chex.assert_trees_all_close(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_no_objective_is_harmed(name):
    with jax.enable_x64(True):
        gradients = stacked(12, jnp.float64, seed=1)
        one = matrix(aggregate(name, gradients, **HARMLESS[name]), 0)
    rows = matrix(gradients)
    gains = rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)
    assert np.linalg.norm(one) > 0
    assert gains.min() > -1e-9


@every_rule
def test_long_and_short_gradients(name):
    """Nothing over- or underflows: 1e-25 and 1e17 are in proportion, in float32; 3e38 is no NaN."""
    gradients = stacked(3, seed=1)
    plain = matrix(aggregate(name, gradients), 0)
    for factor in (1e-25, 1e17):
        scaled = jax.tree.map(lambda x, f=factor: x * f, gradients)
        found = matrix(aggregate(name, scaled), 0)
        assert np.isfinite(found).all()
        if factor < 1 and name in THRESHOLDS:
            mean = matrix(scaled).mean(0)
            expected = 0 * mean if name == "cagrad" else mean
        else:
            expected = plain if name in LENGTHLESS else plain * factor
        scale = np.abs(plain).max() * (1 if name in LENGTHLESS else factor)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * scale)
    if name in ALONG_EACH:
        one, half, shortest = (first_row_times(gradients, f) for f in (1.0, 0.5, 2.0**-100))
        expected = 2 * matrix(aggregate(name, half), 0) - matrix(aggregate(name, one), 0)
        found = matrix(aggregate(name, shortest), 0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(plain).max())
    largest = jax.tree.map(lambda x: 3e38 * jnp.sign(x), gradients)
    assert not np.isnan(matrix(aggregate(name, largest), 0)).any()


@every_rule
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.complex64])
def test_dtypes(name, dtype):
    """The result has the dtype of the params; the arithmetic is that of float32 at least."""
    gradients = stacked(3, dtype, seed=2)
    if name == "graddrop" and dtype == jnp.complex64:
        with pytest.raises(ValueError, match="complex"):
            aggregate(name, gradients)
        return
    one = aggregate(name, gradients)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(one))
    if dtype == jnp.bfloat16:  # the widest type there is may be none of the gradients'
        with jax.enable_x64(True), strict():
            rule, params = build(name), like(dtype)
            update = lambda g, p: rule.update(g, rule.init(p), p)[0]  # noqa: E731
            assert jax.eval_shape(update, gradients, params)["b"].dtype == dtype
    wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(dtype, jnp.float32)), gradients)
    expected = aggregate(name, wide)
    if name != "graddrop":  # whose draws differ with the dtype
        chex.assert_trees_all_close(
            jax.tree.map(lambda x: x.astype(jnp.complex64), one),
            jax.tree.map(lambda x: x.astype(jnp.complex64), expected),
            rtol=2e-2,
            atol=2e-2,
        )


@every_rule
def test_the_tree_is_never_flattened(name):
    """No operation takes a leaf of 7 x 11 entries apart, or joins it with another."""
    gradients = {"w": jnp.ones((3, 7, 11)), "b": jnp.ones((3, 11))}
    params = {"w": jnp.ones((7, 11)), "b": jnp.ones(11)}
    rule = build(name)
    state = rule.init(params)
    traced = jax.make_jaxpr(lambda g: rule.update(g, state, params)[0])(gradients)
    for equation in traced.jaxpr.eqns:
        if equation.primitive.name in ("reshape", "concatenate", "gather"):
            assert all(value.aval.size < 77 for value in equation.outvars), equation


@every_rule
def test_a_mesh_changes_no_result(name):
    gradients = stacked(3, seed=7)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    rule = build(name)
    with jax.set_mesh(mesh):
        specs = {"w": jax.P(None, "x"), "b": jax.P(), "s": jax.P()}
        spread = jax.device_put(
            gradients, {k: jax.NamedSharding(mesh, spec) for k, spec in specs.items()}
        )
        params = jax.tree.map(lambda x: x[0], spread)
        found, _ = jax.jit(rule.update)(spread, rule.init(params), params)
        assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, params)
    chex.assert_trees_all_close(
        jax.device_get(found), jax.device_get(aggregate(name, gradients)), rtol=1e-3, atol=1e-4
    )


@every_rule
def test_in_front_of_an_optimizer(name):
    """State and shapes are stable under a scan, the state is what describe says, nothing is lost.

    Random rules draw anew at every step.
    """
    opt = gradchain.chain(build(name), gradchain.optimizers.adam(0.1))
    params, gradients = like(), stacked(3)
    state = opt.init(params)

    def step(carry, _):
        params, state = carry
        updates, state = opt.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), updates

    (moved, after), updates = jax.jit(lambda c: jax.lax.scan(step, c, length=3))((params, state))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert np.isfinite(matrix(moved, 0)).all()
    assert np.abs(matrix(updates)).min(axis=1).max() > 0
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert gradchain.describe(opt, jax.eval_shape(like)).state_bytes == held


@every_rule
def test_gradient_through_the_aggregation(name):
    """Weights count as constants: finite, at zero gradients too."""
    rule, params = build(name), like()

    def length(gradients):
        one, _ = rule.update(gradients, rule.init(params), params)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(one))

    slope = jax.jit(jax.grad(length))
    for gradients in (stacked(3), jax.tree.map(jnp.zeros_like, stacked(3))):
        assert np.isfinite(matrix(slope(gradients))).all()


@every_rule
def test_odd_trees(name):
    """None, masked nodes, tuples and empty leaves; un-jitted, and no NaN on the way."""
    params = {"a": jnp.ones(3), "none": None, "pair": (jnp.ones((2, 0)), optax.MaskedNode())}
    gradients = jax.tree.map(lambda x: jnp.stack([x, -0.5 * x, 0 * x]), params)
    rule = build(name)
    with jax.debug_nans(True):
        one, _ = rule.update(gradients, rule.init(params), params)
    assert jax.tree.structure(one) == jax.tree.structure(params)
    assert np.isfinite(np.asarray(one["a"])).all()
    rule.update({}, rule.init({}), {})


@every_rule
def test_what_is_not_stacked_is_refused(name):
    rule, params = build(name), like()
    state = rule.init(params)
    with pytest.raises(ValueError, match=f"{name}.*leading axis of objectives"):
        rule.update(params, state, params)
    unequal = {**stacked(3), "b": stacked(2)["b"]}
    with pytest.raises(ValueError, match="same objectives"):
        rule.update(unequal, state, params)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("upgrad", "pref_vector"),
        ("dualproj", "pref_vector"),
        ("aligned_mtl", "pref_vector"),
        ("config", "pref_vector"),
        ("graddrop", "leak"),
        ("weighted_sum", "weights"),
    ],
)
def test_vectors_of_objectives(name, argument):
    """One number for each; another count is refused, and so is what is no vector."""
    gradients = stacked(3)
    plain = matrix(aggregate(name, gradients), 0)
    other = matrix(aggregate(name, gradients, **{argument: (0.9, 0.2, 0.1)}), 0)
    assert np.abs(plain - other).max() > 1e-2
    with pytest.raises(ValueError, match=f"{argument} has 2 entries for 3 objectives"):
        aggregate(name, gradients, **{argument: (1.0, 2.0)})
    for bad in (0.5, [[1.0]], "abc", []):
        with pytest.raises(ValueError, match=argument):
            build(name, **{argument: bad})


@every_rule
def test_an_entry_that_is_not_finite_is_seen_behind_the_rule(name):
    """Else `optax.apply_if_finite` would let it pass there, as zero or as the largest number."""
    gradients = stacked(32)
    for bad in (np.nan, np.inf, -np.inf):
        broken = {**gradients, "w": gradients["w"].at[3, 1, 1].set(bad)}
        assert not np.isfinite(aggregate(name, broken)["w"][1, 1])


@every_rule
def test_same_key_same_draws(name):
    gradients = stacked(32)
    first, second = (matrix(aggregate(name, gradients), 0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    if name in ("graddrop", "pcgrad", "random_weighting"):
        assert np.abs(matrix(aggregate(name, gradients, key=1), 0) - first).max() > 1e-4

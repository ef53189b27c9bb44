"""What every rule must do: one gradient of those of several workers, some of them faulty."""

import functools
import inspect
import itertools

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.catalogue import METHODS
from gradchain.optimizers import aggregate, coordinate_median, robust_aggregate
from subjects import strict
from workers import AXIS, WORLDS

RULES = sorted(name for name, entry in METHODS.items() if entry.kind == "rule")
COUNTED = [n for n in RULES if "num_byzantine" in inspect.signature(METHODS[n].factory).parameters]
UNBOUNDED = {"flag_aggregator"}
"""Rules that state no bound."""
WORKERS, FAULTY = 11, 2
SHAPES = {"w": (4, 3), "b": (3,), "s": ()}

every_rule = pytest.mark.parametrize("name", RULES)


def build(name, **arguments):
    """The rule that bears with two of eleven."""
    counted = {"num_byzantine": FAULTY} if name in COUNTED else {}
    return METHODS[name].factory(**METHODS[name].arguments(**{**counted, **arguments}))


def stacked(seed=0, count=WORKERS, dtype=np.float64):
    """Gradients of honest workers that agree somewhat."""
    rng = np.random.default_rng(seed)
    common = {leaf: rng.normal(size=shape) for leaf, shape in SHAPES.items()}
    return {
        leaf: (x + 0.3 * rng.normal(size=(count, *x.shape))).astype(dtype)
        for leaf, x in common.items()
    }


def matrix(tree, lead=1):
    """The rows of a stacked tree, or its one row."""
    leaves = [np.asarray(tree[leaf]) for leaf in sorted(tree)]
    return np.concatenate([x.reshape(*x.shape[:lead], -1) for x in leaves], axis=lead)


@functools.cache
def compiled(name, arguments=()):
    return jax.jit(build(name, **dict(arguments)))


def combined(name, tree, **arguments):
    """What the rule makes of gradients, as one row."""
    with jax.enable_x64(True):
        return matrix(compiled(name, tuple(arguments.items()))(tree), 0)


# --- the rules, written down again in NumPy -----------------------------------------------------


def distances(x):
    return np.linalg.norm(x[:, None] - x[None], axis=-1)


def krum_scores(x, k, power=1):
    return np.sort(distances(x) ** power, axis=1)[:, 1 : k + 1].sum(axis=1)


def near(x, centre, keep):
    order = np.argsort(np.abs(x - centre), axis=0, kind="stable")
    return np.take_along_axis(x, order[:keep], axis=0).mean(axis=0)


def lower(x):
    return np.sort(x, axis=0)[(len(x) - 1) // 2]


def trimmed(x, f):
    return np.sort(x, axis=0)[f : len(x) - f].mean(axis=0)


def bulyan(x, f):
    n, left = len(x), list(np.argsort(krum_scores(x, len(x) - f - 2), kind="stable"))
    rows = []
    for j in range(n - 2 * f - 2):
        rows.append(x[left[: n - f - 2 - j]].mean(axis=0))
        left.pop(0)
    rows = np.array(rows)
    return near(rows, lower(rows), len(rows) - 2 * f)


def bulyan_of_paper(x, f):
    left, chosen = list(range(len(x))), []
    for _ in range(len(x) - 2 * f):
        k = max(len(left) - f - 2, 1)
        best = left[int(np.argmin(krum_scores(x[left], k, 2)))]
        chosen.append(best)
        left.remove(best)
    rows = x[chosen]
    return near(rows, lower(rows), len(x) - 4 * f)


def weiszfeld(x, nu, steps):
    z = np.zeros_like(x[0])
    for _ in range(steps):
        b = 1 / np.maximum(np.linalg.norm(x - z, axis=1), nu)
        z = b @ x / b.sum()
    return z


def clipped(x, tau, turns):
    v = np.zeros_like(x[0])
    for _ in range(turns):
        length = np.linalg.norm(x - v, axis=1, keepdims=True)
        v = v + ((x - v) * np.minimum(1, tau / length)).mean(axis=0)
    return v


def mixed(x, f):
    order = np.argsort(distances(x), axis=1, kind="stable")[:, : len(x) - f]
    return x[order].mean(axis=1)


def least_spread(x, f):
    choices = [list(c) for c in itertools.combinations(range(len(x)), len(x) - f)]
    best = min(choices, key=lambda c: ((x[c] - x[c].mean(axis=0)) ** 2).sum())
    return x[best].mean(axis=0)


def lowest_scores(x, k, m, power=1):
    return x[np.argsort(krum_scores(x, k, power), kind="stable")[:m]].mean(axis=0)


WRITTEN = [
    ("krum", {}, lambda x: lowest_scores(x, 8, 1)),
    ("krum", {"squared": True, "num_neighbors": 7}, lambda x: lowest_scores(x, 7, 1, 2)),
    ("multi_krum", {}, lambda x: lowest_scores(x, 8, 9)),
    ("multi_krum", {"num_selected": 7, "squared": True}, lambda x: lowest_scores(x, 8, 7, 2)),
    ("trimmed_mean", {}, lambda x: trimmed(x, 2)),
    ("trimmed_mean", {"num_byzantine": 0}, lambda x: x.mean(axis=0)),
    ("coordinate_median", {}, lambda x: np.median(x, axis=0)),
    ("coordinate_median", {"even": "lower"}, lower),
    ("phocas", {}, lambda x: near(x, trimmed(x, 2), len(x) - 2)),
    ("meamed", {}, lambda x: near(x, lower(x), len(x) - 2)),
    ("bulyan", {}, lambda x: bulyan(x, 2)),
    ("bulyan", {"variant": "paper"}, lambda x: bulyan_of_paper(x, 2)),
    ("geometric_median", {"nu": 1.2, "num_iters": 4}, lambda x: weiszfeld(x, 1.2, 4)),
    ("centered_clip", {"clip_threshold": 0.9, "num_iters": 2}, lambda x: clipped(x, 0.9, 2)),
    ("nearest_neighbor_mixing", {}, lambda x: trimmed(mixed(x, 2), 2)),
    ("minimum_variance", {}, lambda x: least_spread(x, 2)),
]


@pytest.mark.parametrize(("name", "arguments", "written"), WRITTEN)
def test_a_rule_is_what_it_says(name, arguments, written):
    for seed in range(3):
        tree = stacked(seed)
        tree["w"][:FAULTY] += 2.0
        found = combined(name, tree, **arguments)
        np.testing.assert_allclose(found, written(matrix(tree)), rtol=1e-10, atol=1e-12)


def test_even_numbers_of_workers():
    tree = stacked(count=8)
    for even, written in (("average", lambda x: np.median(x, axis=0)), ("lower", lower)):
        found = combined("coordinate_median", tree, even=even)
        np.testing.assert_allclose(found, written(matrix(tree)), rtol=1e-12)
    np.testing.assert_allclose(
        combined("meamed", tree), near(matrix(tree), lower(matrix(tree)), 6), rtol=1e-12
    )


# --- hostile workers ----------------------------------------------------------------------------


def in_range(slack):
    """Every coordinate within the honest range, made wider by so many times its width."""

    def check(found, honest):
        low, high = honest.min(axis=0), honest.max(axis=0)
        width = slack * (high - low) + 1e-9
        assert (found >= low - width).all()
        assert (found <= high + width).all()

    return check


def within(times):
    """No farther from any honest gradient than so many of their largest distances."""

    def check(found, honest):
        largest = distances(honest).max()
        assert np.linalg.norm(honest - found, axis=1).max() <= times * largest * (1 + 1e-9)

    return check


def short(found, honest):
    longest = np.linalg.norm(honest, axis=1).max()
    share = WORKERS / (WORKERS - FAULTY)
    assert np.linalg.norm(found) <= max(longest, 0.1) * ((1 + share) ** 3 - 1)


def coordinates_within(times):
    def check(found, honest):
        largest = distances(honest).max()
        assert np.abs(honest - found).max() <= times * largest * (1 + 1e-9)

    return check


def mixed_range(found, honest):
    largest = distances(honest).max()
    assert (found >= honest.min(axis=0) - largest).all()
    assert (found <= honest.max(axis=0) + largest).all()


def one_threshold_a_turn(found, honest):
    assert np.linalg.norm(found) <= 3 * 1.0 * (1 + 1e-9)


K = WORKERS - FAULTY - 1
BOUNDS = {
    "krum": within(1 + K / (K - FAULTY)),
    "multi_krum": within(1 + K / (K - FAULTY)),
    "trimmed_mean": in_range(0),
    "coordinate_median": in_range(0),
    "phocas": in_range(1),
    "meamed": in_range(1),
    "bulyan": coordinates_within(3 * (1 + (K - 1) / (K - 1 - FAULTY))),
    "geometric_median": short,
    "centered_clip": one_threshold_a_turn,
    "nearest_neighbor_mixing": mixed_range,
    "minimum_variance": within(1 + (WORKERS - FAULTY) ** 0.5),
}


def attacks(seed):
    """What two of eleven send: far away, near the edge, all alike, opposed, or no numbers."""
    honest = stacked(seed)
    rng = np.random.default_rng(100 + seed)
    for how in (1e30, 1e3, 3.0, -1.0, np.nan, np.inf, -np.inf, "one"):
        tree = {leaf: x.copy() for leaf, x in honest.items()}
        for leaf, x in tree.items():
            x[:FAULTY] = how * x[FAULTY:].mean(axis=0) if how in (-1.0, 3.0) else 0.0
            if how == "one":
                x[:FAULTY] = honest[leaf][:FAULTY]
            elif how not in (-1.0, 3.0):
                x[:FAULTY] = how * rng.normal(size=x[:FAULTY].shape)
        if how == "one":
            tree["b"][0, 1] = np.nan
        yield how, tree


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_hostile_workers_move_the_result_by_no_more_than_the_bound(name):
    for seed in range(2):
        for how, tree in attacks(seed):
            found = combined(name, tree)
            assert np.isfinite(found).all(), how
            BOUNDS[name](found, matrix(tree)[FAULTY:])


def test_every_rule_states_its_bound():
    assert set(BOUNDS) == set(RULES) - UNBOUNDED


@pytest.mark.parametrize("name", COUNTED)
def test_too_many_byzantine_workers_are_refused_with_the_bound(name):
    least = next(n for n in range(1, 30) if _bears(name, n))
    assert least == {"bulyan": 11, "krum": 7, "multi_krum": 7}.get(name, 5)
    with pytest.raises(ValueError, match=rf"{name}: num_byzantine=2 of {least - 1} .*= {least} wo"):
        build(name)(stacked(count=least - 1))


def _bears(name, count):
    try:
        jax.eval_shape(build(name), stacked(count=count))
    except ValueError:
        return False
    return True


# --- as functions and as transformations --------------------------------------------------------


@every_rule
def test_order_dtypes_and_sizes(name):
    """The numbers of the workers do not matter, nor the scale; dtypes are those that came in."""
    tree = stacked(3)
    found = combined(name, tree)
    order = np.random.default_rng(0).permutation(WORKERS)
    shuffled = {leaf: x[order] for leaf, x in tree.items()}
    np.testing.assert_allclose(combined(name, shuffled), found, rtol=1e-9, atol=1e-12)
    if name not in ("geometric_median", "centered_clip", *UNBOUNDED):
        for factor in (1e-25, 1e17):
            scaled = {leaf: (x * factor).astype(np.float32) for leaf, x in tree.items()}
            again = matrix(compiled(name)(scaled), 0)
            np.testing.assert_allclose(again / factor, found, rtol=1e-4, atol=1e-5)
    for dtype in (jnp.bfloat16, jnp.complex64):
        if dtype == jnp.complex64 and name in UNBOUNDED:
            continue
        cast = jax.tree.map(lambda x, d=dtype: jnp.asarray(x).astype(d), tree)
        one = jax.eval_shape(build(name), cast)
        assert {leaf: (x.shape, x.dtype) for leaf, x in one.items()} == {
            leaf: (shape, jnp.dtype(dtype)) for leaf, shape in SHAPES.items()
        }


@every_rule
def test_bad_input(name):
    rule = build(name)
    for tree in ({"w": jnp.zeros((11, 2)), "b": jnp.zeros((10, 2))}, {"s": jnp.zeros(())}):
        with pytest.raises(ValueError, match=rf"{name}.*leading axis of workers"):
            rule(tree)
    tx, params = aggregate(rule), {leaf: jnp.zeros(shape) for leaf, shape in SHAPES.items()}
    with pytest.raises(ValueError, match=r"aggregate.*leading axis of workers"):
        tx.update(params, tx.init(params), params)


@every_rule
def test_nothing_at_all(name):
    """Zero gradients, empty leaves, missing leaves and empty trees; nothing broadcast silently."""
    tree = {"a": jnp.zeros((WORKERS, 3)), "none": None, "e": jnp.zeros((WORKERS, 0))}

    def squares(tree):
        one = build(name)(tree)
        return jnp.sum(one["a"] ** 2), one

    with strict():
        slope, one = jax.jit(jax.grad(squares, has_aux=True))(tree)
    assert jax.tree.structure(one) == jax.tree.structure(tree)
    assert (np.asarray(one["a"]) == 0).all()
    assert np.isfinite(slope["a"]).all()


@every_rule
@pytest.mark.parametrize("world", sorted(WORLDS))
def test_gathered_over_an_axis(name, world):
    """As the rule on stacked gradients, in both worlds, and the same on all workers."""
    count = 7 if name == "bulyan" else 8
    arguments = {"num_byzantine": 1} if name in COUNTED else {}
    tree = stacked(1, count, np.float32)
    opt = robust_aggregate(build(name, **arguments), AXIS)
    params = {leaf: jnp.zeros(shape) for leaf, shape in SHAPES.items()}

    def train(own, shared):
        return opt.update(own, opt.init(shared), shared)[0]

    found = WORLDS[world](train, tree, params)
    alone = compiled(name, tuple(arguments.items()))(tree)  # once for both worlds
    np.testing.assert_allclose(matrix(found, 0), matrix(alone, 0), rtol=1e-5, atol=1e-6)
    sent = gradchain.describe(opt, params).sent_bytes
    assert sent == sum(x.size * 4 for x in params.values())


def test_what_is_no_rule_or_no_axis_is_refused():
    with pytest.raises(ValueError, match="rule=3"):
        aggregate(3)
    opt, params = robust_aggregate(coordinate_median(), "elsewhere"), jnp.zeros(3)
    with pytest.raises(ValueError, match="axis_name='elsewhere'"):
        opt.update(params, opt.init(params), params)


@pytest.mark.parametrize("world", sorted(WORLDS))
@pytest.mark.parametrize("name", ["upgrad", "nash_mtl", "graddrop"])
def test_rules_of_several_losses_over_an_axis(name, world):
    """The multi-objective ones fit too, those with a state included."""
    inner = METHODS[name].factory()
    tree = stacked(2, 4, np.float32)
    params = {leaf: jnp.zeros(shape) for leaf, shape in SHAPES.items()}
    opt = robust_aggregate(inner, AXIS)

    def train(own, shared):
        def step(state, _):
            updates, state = opt.update(own, state, shared)
            return state, updates

        _, updates = jax.lax.scan(step, opt.init(shared), length=2)
        return jax.tree.map(lambda x: x[-1], updates)

    alone = aggregate(inner)
    state, update = alone.init(params), jax.jit(alone.update)
    for _ in range(2):
        expected, state = update(tree, state, params)
    found = WORLDS[world](train, tree, params)
    np.testing.assert_allclose(matrix(found, 0), matrix(expected, 0), rtol=1e-4, atol=1e-5)


def test_centered_clipping_starts_from_its_last_result():
    rule = METHODS["centered_clip"].factory(0.1, num_iters=1)
    tree, params = stacked(dtype=np.float32), {k: jnp.zeros(v) for k, v in SHAPES.items()}
    tx = aggregate(rule)
    state, last = tx.init(params), params
    update, combine = jax.jit(tx.update), jax.jit(rule)
    for _ in range(3):
        one, state = update(tree, state, params)
        last = combine(tree, previous=last)
        np.testing.assert_allclose(matrix(one, 0), matrix(last, 0), rtol=1e-6)
    assert np.linalg.norm(matrix(last, 0)) > 0.15

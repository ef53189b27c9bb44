"""Games: what circles arrives, the single-call methods agree where they should, sets are kept."""

import functools

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import eval_params, optimizers
from gradchain.transforms import flow
from gradchain.transforms.accumulate import complex_trace, linked_trace
from gradchain.transforms.closures import gradient_at
from gradchain.transforms.projections import ball, box, half_space, keep_params_in, simplex

A = jnp.array([[1.0, 0.5, -0.3], [-0.4, 0.8, 0.2], [0.3, 0.1, 0.9]])
START = {"x": jnp.array([1.0, -0.5, 0.3]), "y": jnp.array([0.2, 0.7, -1.0])}


def bilinear(z):
    """The field of min over x, max over y of x A y, whose only solution is 0."""
    return {"x": A @ z["y"], "y": -A.T @ z["x"]}


def play(opt, steps, field=bilinear, start=START):
    """The points of the loop, from the start on, and the last state."""

    def step(carry, _):
        z, state = carry
        updates, state = opt.update(field(z), state, z, grad_fn=field)
        z = optax.apply_updates(z, updates)
        return (z, state), z

    run = jax.jit(lambda z: jax.lax.scan(step, (z, opt.init(z)), length=steps))
    (_, state), points = run(start)
    return points, state


def distance(points):
    return np.sqrt(sum(np.sum(np.square(x), axis=-1) for x in jax.tree.leaves(points)))


@pytest.mark.parametrize(
    "opt",
    [
        optimizers.extragradient(0.3),
        optimizers.past_extragradient(0.3),
        optimizers.reflected_gradient(0.3),
        optimizers.projected_optimistic_gradient(0.3),
        optimizers.optimistic_gradient(0.3),
        optimizers.optimistic_mirror_descent(0.3),
        optimizers.optimistic_mirror_descent(diameter=2.0),
        optimizers.complex_momentum(0.3, 0.8, jnp.pi / 3),
    ],
    ids=lambda opt: repr(opt)[:40],
)
def test_bilinear_games_are_solved(opt):
    points, _ = play(opt, 400)
    assert distance(points)[-1] < 0.05 * distance(START)


@pytest.mark.parametrize("opt", [optimizers.sgd(0.1), optimizers.sgd(0.05, momentum=0.5)])
def test_descent_and_momentum_run_away(opt):
    points, _ = play(opt, 200)
    assert distance(points)[-1] > 1.5 * distance(START)


def test_single_call_methods_are_one_without_a_set():
    """At a constant rate, from the same hint; with a decaying rate the reflection differs."""
    build = (
        optimizers.past_extragradient,
        optimizers.reflected_gradient,
        optimizers.projected_optimistic_gradient,
        optimizers.optimistic_mirror_descent,
    )
    first, *others = (play(make(0.2), 30)[0] for make in build)
    for points in others:
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), points, first)
    decaying = optax.exponential_decay(0.3, 5, 0.5)
    popov, reflected, optimistic, mirror = (play(make(decaying), 30)[0] for make in build)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), popov, optimistic)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), popov, mirror)
    assert np.abs(popov["x"] - reflected["x"]).max() > 1e-3


def test_the_other_first_hint_is_that_of_the_optimistic_gradient():
    popov, _ = play(optimizers.past_extragradient(0.2, initial_hint="current"), 30)
    optimistic, _ = play(optimizers.optimistic_gradient(0.2), 30)
    expected, _ = play(optax.optimistic_gradient_descent(0.2), 30)
    np.testing.assert_allclose(popov["x"], optimistic["x"], atol=1e-5)
    np.testing.assert_allclose(expected["x"], optimistic["x"], atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        optimizers.past_extragradient,
        optimizers.reflected_gradient,
        optimizers.projected_optimistic_gradient,
        optimizers.optimistic_mirror_descent,
    ],
)
def test_evaluation_is_at_the_base_point(make):
    opt = make(0.25)
    z = jnp.array([1.0])
    state = opt.init(z)
    np.testing.assert_allclose(eval_params(state, z), z)
    updates, state = opt.update(jnp.array([2.0]), state, z)
    z = optax.apply_updates(z, updates)
    np.testing.assert_allclose(z, 0.0, atol=1e-6)
    np.testing.assert_allclose(eval_params(state, z), 0.5, atol=1e-6)


@pytest.mark.parametrize("name", ["extragradient", "past_extragradient"])
def test_points_stay_in_the_set_where_methods_say_so(name):
    """A game whose solution lies outside: both points of the method are in the box."""
    pulled = lambda z: {"x": bilinear(z)["x"] + 3.0, "y": bilinear(z)["y"] - 3.0}  # noqa: E731
    points, state = play(getattr(optimizers, name)(0.3, projection=box(-0.9, 0.9)), 60, pulled)
    last = jax.tree.map(lambda x: x[-1], points)
    for tree in (points, eval_params(state, last)):
        assert all(np.abs(x).max() <= 0.9 + 1e-6 for x in jax.tree.leaves(tree))
    np.testing.assert_allclose(points["x"][-1], -0.9, atol=1e-6)


def test_a_set_for_each_player():
    sets = {"x": ball(0.5), "y": None}
    points, _ = play(optimizers.extragradient(0.3, projection=sets), 20)
    assert np.linalg.norm(points["x"], axis=-1).max() <= 0.5 + 1e-6
    assert np.linalg.norm(points["y"], axis=-1).max() > 0.5


def test_rock_paper_scissors():
    """With the entropy the strategies reach the centre."""
    payoff = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    field = lambda z: {"x": payoff @ z["y"], "y": -payoff.T @ z["x"]}  # noqa: E731
    start = {"x": jnp.array([0.8, 0.1, 0.1]), "y": jnp.array([0.1, 0.1, 0.8])}
    opt = optimizers.optimistic_mirror_descent(0.3, mirror="entropy")
    points, state = play(opt, 1500, field, start)
    for strategies in points.values():
        np.testing.assert_allclose(strategies.sum(-1), 1, rtol=1e-4)
        np.testing.assert_allclose(strategies[-1], 1 / 3, atol=1e-2)
    last = jax.tree.map(lambda x: x[-1], points)
    np.testing.assert_allclose(eval_params(state, last)["x"], 1 / 3, atol=1e-2)


def test_no_strategy_dies_for_good():
    """A probability of 0 comes back when it pays."""
    opt = optimizers.optimistic_mirror_descent(0.5, mirror="entropy")
    costs = lambda p: jnp.array([1.0, 0.0])  # noqa: E731
    points, _ = play(opt, 400, costs, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(points[-1], [0.0, 1.0], atol=1e-4)


def test_a_hint_of_zero_is_plain_mirror_descent():
    zero = optimizers.optimistic_mirror_descent(
        0.1, hint=lambda tree: jax.tree.map(jnp.zeros_like, tree)
    )
    plain, _ = play(optimizers.sgd(0.1), 20)
    points, _ = play(zero, 20)
    np.testing.assert_allclose(points["x"], plain["x"], rtol=1e-5)


# --- complex momentum -----------------------------------------------------------------------------


def test_real_decays_are_ordinary_momentum_and_adam():
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)

    def run(opt):
        return jax.lax.scan(lambda s, g: opt.update(g, s)[::-1], opt.init(jnp.zeros(3)), grads)[1]

    for ours, theirs in (
        (optimizers.complex_momentum(0.1, 0.8, 0.0), optax.sgd(0.1, 0.8)),
        (optimizers.complex_adam(0.1, 0.8, 0.0, bias_correction=True), optax.adam(0.1, 0.8)),
    ):
        np.testing.assert_allclose(run(ours), run(theirs), rtol=1e-4, atol=1e-6)
    m, phase = 0.7, 0.9
    rotation = (
        (m * np.cos(phase), -m * np.sin(phase)),
        (m * np.sin(phase), m * np.cos(phase)),
    )
    buffers = np.asarray(run(complex_trace(m, phase)))
    np.testing.assert_allclose(buffers, run(linked_trace(rotation)), rtol=1e-5, atol=1e-6)
    weights = np.array([m**k * np.cos(k * phase) for k in range(12)])
    np.testing.assert_allclose(buffers[-1], weights @ np.asarray(grads)[::-1], rtol=1e-4, atol=1e-5)


def test_corrected_complex_adam_starts_with_the_sign():
    opt = optimizers.complex_adam(0.5, phase=1.0, bias_correction=True)
    updates, _ = opt.update(jnp.array([3.0, -1e-3]), opt.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [-0.5, 0.5], rtol=1e-4)


# --- sets -----------------------------------------------------------------------------------------

SETS = {
    "box": (box(-0.5, 0.8), lambda x: (x >= -0.5).all() and (x <= 0.8).all()),
    "simplex": (simplex(), lambda x: (x >= 0).all() and abs(x.sum() - 1) < 1e-5),
    "ball": (ball(0.7, 0.2), lambda x: np.linalg.norm(x - 0.2) <= 0.7 + 1e-5),
    "half_space": (half_space(jnp.array([1.0, 2.0, -1.0, 0.5]), 0.3),
                   lambda x: x @ np.array([1.0, 2.0, -1.0, 0.5]) <= 0.3 + 1e-5),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_the_nearest_point_of_a_set(name):
    """In the set, nearer than any other of its points, and unchanged when projected again."""
    nearest, contains = SETS[name]
    rng = np.random.default_rng(3)
    points = [np.asarray(nearest(jnp.asarray(rng.normal(size=4) * 2))) for _ in range(60)]
    assert all(contains(point) for point in points)
    for _ in range(10):
        x = rng.normal(size=4) * 2
        found = np.asarray(nearest(jnp.asarray(x)))
        np.testing.assert_allclose(nearest(jnp.asarray(found)), found, atol=1e-6)
        away = min(np.linalg.norm(x - other) for other in points)
        assert np.linalg.norm(x - found) <= away + 1e-6


def test_sets_of_trees_and_odd_leaves():
    tree = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0), "empty": jnp.zeros((0,))}
    np.testing.assert_allclose(ball(1.0)(tree)["b"], 0.8)
    np.testing.assert_allclose(simplex(2.0)(tree)["b"], 2.0)
    np.testing.assert_allclose(half_space(tree, 0.0)(tree)["a"], 0.0, atol=1e-6)
    np.testing.assert_allclose(box({"a": 1.0, "b": 5.0, "empty": 0.0}, 9.0)(tree)["b"], 5.0)
    np.testing.assert_allclose(ball(0.0)(jnp.zeros(2)), 0.0)


def test_any_function_is_a_projection():
    opt = gradchain.chain(optimizers.sgd(1.0), keep_params_in(optax.projections.projection_simplex))
    params = {"a": jnp.array([0.2]), "b": jnp.array([0.8])}
    updates, _ = opt.update(
        {"a": jnp.array([-5.0]), "b": jnp.array([0.0])}, opt.init(params), params
    )
    np.testing.assert_allclose(optax.apply_updates(params, updates)["a"], 1.0)


@pytest.mark.parametrize(
    "name",
    [
        "extragradient",
        "past_extragradient",
        "reflected_gradient",
        "projected_optimistic_gradient",
        "optimistic_mirror_descent",
    ],
)
def test_what_is_no_set_is_refused(name):
    make = getattr(optimizers, name)
    with pytest.raises(ValueError, match=rf"{name}: projection=1\.0"):
        make(0.1, projection=1.0)
    opt = make(0.1, projection={"z": box(0.0, 1.0)})
    with pytest.raises(ValueError, match="does not fit"):
        opt.update(START, opt.init(START), START, grad_fn=bilinear)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: box(1.0, 0.0), "lower=1.0"),
        (lambda: simplex(0.0), "total=0.0"),
        (lambda: ball(-1.0), "radius=-1.0"),
        (
            lambda: optimizers.optimistic_mirror_descent(mirror="entropy", projection=box()),
            "projection belongs to",
        ),
    ],
)
def test_bad_sets_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- gradients elsewhere --------------------------------------------------------------------------


@flow
def ahead(g, params, value_fn=None, grad_fn=None):
    return gradient_at(params + g, value_fn, grad_fn)


def test_gradients_at_another_point():
    z, g = jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0])
    assert gradchain.needs(ahead) == ("params", "value_fn")
    loss = lambda p: jnp.sum(p**3)  # noqa: E731
    found, _ = ahead.update(g, ahead.init(z), z, value_fn=loss)
    np.testing.assert_allclose(found, 3 * (z + g) ** 2)
    found, _ = ahead.update(g, ahead.init(z), z, value_fn=loss, grad_fn=lambda p: -p)
    np.testing.assert_allclose(found, -(z + g))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs `value_fn`.*grad_fn"),
        ({"grad_fn": 3.0}, "grad_fn must be a function"),
        ({"grad_fn": lambda p: {"a": p}}, "tree like the params|returns shape|leaf"),
        ({"grad_fn": lambda p: p[:1]}, r"returns shape \(1,\)"),
        ({"value_fn": lambda p: p}, "scalar loss"),
    ],
)
def test_functions_that_give_no_gradient_are_refused(given, message):
    z = jnp.array([1.0, 2.0])
    with pytest.raises(ValueError, match=message):
        ahead.update(z, ahead.init(z), z, **given)

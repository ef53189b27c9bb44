"""Several objectives: the small programs are solved exactly, the gradients are those of the losses.

What every aggregator must do is in tests/catalogue/test_aggregators.py.
"""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import objective_gradients, optimizers
from gradchain.transforms.objectives import (
    aggregate_by_gramian,
    dual_cone_projection,
    nonnegative_qp,
    simplex_minimum_norm,
    stacked,
)
from scipy.optimize import minimize, nnls

SIZES = [(2, "enumerate"), (5, "enumerate"), (5, "projected_newton"), (32, "projected_newton")]


def gradients(rng, m, n, kind):
    """m x n gradients: of one length, of very different ones, or nearly parallel."""
    J = rng.normal(size=(m, n))
    if kind == "lengths":
        return J * np.exp(2 * rng.normal(size=(m, 1)))
    return J + 3 * rng.normal(size=n) if kind == "parallel" else J


@pytest.mark.parametrize(("m", "solver"), SIZES)
def test_nonnegative_programs_are_solved_as_by_lawson_and_hanson(m, solver):
    with jax.enable_x64(True):
        solve = jax.jit(lambda G, c: nonnegative_qp(G, c, solver))
        rng = np.random.default_rng(m)
        for kind in ("plain", "lengths", "parallel") * 4:
            J, b = gradients(rng, m, 40, kind), rng.normal(size=40) * 3
            y = np.asarray(solve(J @ J.T, -J @ b))
            expected = nnls(J.T, b)[0]
            assert (y >= 0).all()
            np.testing.assert_allclose(J.T @ y, J.T @ expected, rtol=1e-9, atol=1e-9)


def test_programs_of_dependent_gradients():
    """More objectives than dimensions, zero among their combinations: the value is still right."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        for m, n in ((6, 2), (8, 3), (32, 10)):
            J = rng.normal(size=(m, n))
            a = np.asarray(jax.jit(simplex_minimum_norm)(jnp.asarray(J @ J.T)))
            assert a.min() >= 0
            assert a.sum() == pytest.approx(1)
            outside = np.linalg.norm(nnls(np.vstack([J.T, np.ones(m)]), np.eye(n + 1)[n])[1])
            if outside < 1e-9:
                np.testing.assert_allclose(J.T @ a, 0, atol=1e-9)


def test_both_solvers_agree():
    with jax.enable_x64(True):
        J = np.random.default_rng(1).normal(size=(5, 9))
        G = jnp.asarray(J @ J.T)
        bounds = jnp.eye(5) / 5
        solve = jax.jit(dual_cone_projection, static_argnums=2)
        first, second = solve(G, bounds, "enumerate"), solve(G, bounds, "projected_newton")
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="projected_newton"):
        nonnegative_qp(jnp.eye(20), jnp.ones(20), "enumerate")


def test_upgrad_of_gradients_in_parts():
    """The inner products are summed over the axis, and scaled alike on it."""
    whole = np.random.default_rng(2).normal(size=(3, 4, 2)) * np.array([1, 1e3, 1e-3, 1])[:, None]

    def aggregated(g, axis_name=None):
        rule = optimizers.upgrad(axis_name=axis_name)
        return rule.update(g, rule.init(g[0]), g[0])[0]

    parts = jax.vmap(lambda g: aggregated(g, "parts"), in_axes=1, axis_name="parts")
    expected = aggregated(jnp.asarray(whole, jnp.float32))
    np.testing.assert_allclose(parts(jnp.asarray(whole, jnp.float32)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="upgrad: axis_name='parts'"):
        aggregated(jnp.ones((2, 3)), "parts")


def test_no_nan_is_written_down_beside_finite_gradients():
    """With nothing compiled, `jax_debug_nans` sees constants, too."""
    rule, ones = optimizers.weighted_sum((0.5, 0.5)), jnp.ones((2, 3))
    with jax.debug_nans(True), jax.disable_jit():
        one, _ = rule.update(ones, rule.init(ones[0]))
    np.testing.assert_allclose(one, np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("m", [2, 5, 20])
@pytest.mark.parametrize("c", [0.2, 0.5, 2.0])
def test_cagrad_is_optimal(m, c):
    """On the sphere about the mean, and the worst gain is as large as the best convex bound.

    The bound, over convex combinations w, is that of the paper; equality proves both optimal.
    """
    with jax.enable_x64(True):
        J = np.random.default_rng(m).normal(size=(m, 50)) + 0.3
        rule = optimizers.cagrad(c=c)
        d = np.asarray(jax.jit(rule.update)(jnp.asarray(J), rule.init(jnp.zeros(50)))[0])
    mean = J.mean(0)
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(d - mean) == pytest.approx(radius, rel=1e-9)
    w = np.asarray(nnls(J.T, (d - mean) / radius)[0])
    w = w / w.sum()
    bound = w @ J @ mean + radius * np.linalg.norm(w @ J)
    assert (J @ d).min() == pytest.approx(bound, rel=1e-7)


def test_cagrad_rescales():
    J = jnp.asarray(np.random.default_rng(0).normal(size=(3, 9)), jnp.float32)
    plain, c, c2 = (
        jax.jit(optimizers.cagrad(c=0.5, rescale=how).update)(J, optax.EmptyState())[0]
        for how in (None, "c", "c2")
    )
    np.testing.assert_allclose(plain / 1.5, c, rtol=1e-5)
    np.testing.assert_allclose(plain / 1.25, c2, rtol=1e-5)


@pytest.mark.parametrize("m", [1, 3, 32])
def test_nash_mtl_bargains_exactly(m):
    """G a = 1 / a: unclipped, every objective gains by the reciprocal of its weight."""
    with jax.enable_x64(True):
        J = gradients(np.random.default_rng(m), m, 60, "lengths")
        rule = optimizers.nash_mtl(max_norm=0.0)
        state = rule.init(jnp.zeros(60))
        d, state = jax.jit(rule.update)(jnp.asarray(J), state)
        a = np.asarray(state.weights)[:m]
        np.testing.assert_allclose(J @ np.asarray(d) * a, 1, rtol=1e-9)
        assert np.linalg.norm(d) == pytest.approx(np.sqrt(m), rel=1e-9)


def test_nash_mtl_bargains_in_few_steps():
    with jax.enable_x64(True):
        J = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)))
        for most, least, largest in ((1, 1.0, np.inf), (3, 1e-9, 1e-5), (4, 0.0, 1e-12)):
            rule = optimizers.nash_mtl(max_norm=0.0, max_iters=most)
            a = np.asarray(jax.jit(rule.update)(J, rule.init(jnp.zeros(8)))[1].weights)[:3]
            off = np.max(np.abs(J @ J.T @ a * a - 1))
            assert least <= off <= largest


def test_nash_mtl_keeps_its_weights_between_solutions():
    rule = optimizers.nash_mtl(max_norm=0.0, update_interval=2)
    J = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    state, update = rule.init(jnp.zeros(8)), jax.jit(rule.update)
    _, first = update(J, state)
    second_update, second = update(2 * J, first)
    _, third = update(2 * J, second)
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_allclose(second_update, 2 * first.weights[:3] @ J, rtol=1e-5)
    np.testing.assert_allclose(third.weights[:3], first.weights[:3] / 2, rtol=1e-5)
    small = optimizers.nash_mtl(max_objectives=2)
    with pytest.raises(ValueError, match="max_objectives=2"):
        small.update(J, small.init(jnp.zeros(8)))


UNEQUAL = np.float32([[1e5], [1], [1e-2], [1]])


def shortest_by_frank_wolfe(J):
    a = np.full(len(J), 1 / len(J))
    for _ in range(100):
        products = J @ (J.T @ a)
        k = np.argmin(products)
        towards, here, there = products[k], a @ products, J[k] @ J[k]
        gamma = 1.0 if there <= towards else (here - towards) / (here + there - 2 * towards)
        a = (1 - gamma) * a + gamma * (np.arange(len(J)) == k)
        if gamma < 1e-3:
            break
    return a @ J


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_very_different_lengths_count_in_single_precision(seed):
    """The squares of their lengths are in the condition of the Gramian, not in the result."""
    J = np.random.default_rng(seed).normal(size=(4, 40)).astype(np.float32) * UNEQUAL
    wide = J.astype(np.float64)
    rules = optimizers.imtl_g(), optimizers.mgda()
    fair, short = jax.jit(lambda J: [rule.update(J, rule.init(J[0]))[0] for rule in rules])(J)
    along = wide @ np.asarray(fair, np.float64) / np.linalg.norm(wide, axis=1)
    np.testing.assert_allclose(along, along[0], rtol=1e-4)
    wanted = shortest_by_frank_wolfe(wide)
    np.testing.assert_allclose(short, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_exact_mgda_is_shorter_than_frank_wolfe():
    with jax.enable_x64(True):
        J = jnp.asarray(np.random.default_rng(3).normal(size=(6, 30)) + 0.5)
        lengths = {
            solver: np.linalg.norm(jax.jit(optimizers.mgda(solver=solver).update)(J, ())[0])
            for solver in ("exact", "frank_wolfe")
        }
        G = np.asarray(J @ J.T)
        best = minimize(
            lambda a: a @ G @ a,
            np.full(6, 1 / 6),
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            options={"ftol": 1e-14},
        )
    assert lengths["exact"] == pytest.approx(np.sqrt(best.fun), rel=1e-5)
    assert lengths["exact"] < lengths["frank_wolfe"] < 1.05 * lengths["exact"]


@pytest.mark.parametrize(
    "length", ["projection", "min", "max", "harmonic", "arithmetic", "geometric", 1]
)
def test_config_has_equal_cosines_and_the_length_that_is_asked_for(length):
    with jax.enable_x64(True):
        J = gradients(np.random.default_rng(7), 4, 12, "lengths")
        rule = optimizers.config(length=length)
        g = np.asarray(jax.jit(rule.update)(jnp.asarray(J), rule.init(jnp.zeros(12)))[0])
    norms = np.linalg.norm(J, axis=1)
    cosines = J @ g / norms / np.linalg.norm(g)
    np.testing.assert_allclose(cosines, cosines[0], rtol=1e-9)
    assert cosines[0] > 0
    r = {
        "projection": norms.mean(),
        "min": norms.min(),
        "max": norms.max(),
        "harmonic": 4 / (1 / norms).sum(),
        "arithmetic": norms.mean(),
        "geometric": norms.prod() ** 0.25,
        1: norms[1],
    }[length]
    assert np.linalg.norm(g) == pytest.approx(4 * r * cosines[0], rel=1e-9)


@pytest.mark.parametrize("use_least_squares", [True, False])
def test_config_may_leave_out_what_is_nearly_dependent(use_least_squares):
    """The eigenvalues of the cosines of these two are as 1 to 2.5e-13."""
    with jax.enable_x64(True):
        J = jnp.array([[1.0, 0.0], [1.0, 1e-6]])
        rule = optimizers.config((2.0, 1.0), use_least_squares=use_least_squares)
        first, second = J @ rule.update(J, rule.init(jnp.zeros(2)))[0]
    np.testing.assert_allclose(first / second, 1.0 if use_least_squares else 2.0, rtol=1e-2)


@pytest.mark.parametrize("scale_mode", ["min", "median", "rmse"])
def test_aligned_gradients_are_as_long_as_the_kept_directions_say(scale_mode):
    """Of five gradients one is twice another: four eigenvalues, the second the median."""
    with jax.enable_x64(True):
        J = gradients(np.random.default_rng(3), 5, 12, "lengths")
        J[4] = 2 * J[0]
        rule = optimizers.aligned_mtl(tuple(range(1, 6)), scale_mode)
        g = np.asarray(rule.update(jnp.asarray(J), rule.init(jnp.zeros(12)))[0])
    left, sizes, right = np.linalg.svd(J, full_matrices=False)
    squares = sizes[:4] ** 2
    s = {"min": squares[3], "median": squares[2], "rmse": squares.mean()}[scale_mode]
    wanted = s**0.5 * right[:4].T @ left[:, :4].T @ np.arange(1, 6)
    np.testing.assert_allclose(g, wanted, rtol=1e-8, atol=1e-10)


LENGTHS = ([1, 30, 0.01], [1, 0, 2], [1e-30, 1, 1e18], [1e18, 3e17, 1e18], [1e-28, 2e-28, 1])


@pytest.mark.parametrize("name", ["config", "upgrad"])
def test_large_gradients_are_weighed_as_small_ones_are(name, monkeypatch):
    """Without a copy of them where that is right, with one where it is not, to the last digits."""
    rng, opt = np.random.default_rng(5), getattr(optimizers, name)()
    plain = {"a": rng.normal(size=(3, 40)), "b": rng.normal(size=(3, 20))}
    for lengths in LENGTHS:
        g = jax.tree.map(jnp.float32, {k: x * np.c_[lengths] for k, x in plain.items()})
        state = opt.init(jax.tree.map(lambda leaf: leaf[0], g))
        found = []
        for size in (2**16, 0):
            monkeypatch.setattr(stacked, "CHEAP_TO_READ_TWICE", size)
            update = jax.jit(lambda g, state=state: opt.update(g, state)[0])
            found.append(jax.tree.leaves(update(g)))
        largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in found[0])
        for small, large in zip(*found, strict=True):
            np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-6 * largest)


def test_config_refuses_the_number_of_nobody():
    with pytest.raises(ValueError, match="length=3"):
        optimizers.config(length=3).update(jnp.eye(2), ())
    with pytest.raises(ValueError, match="length"):
        optimizers.config(length="longest")


def test_the_primitive_takes_any_rule():
    """`aggregate_by_gramian` gives the Gramian of the whole tree, and hyper-parameters by name."""
    seen = []

    def weights(G, power):
        seen.append(G)
        return jnp.diagonal(G) ** power

    rule = aggregate_by_gramian(weights, power=lambda count: -1.0 - count)
    tree = {"a": jnp.array([[1.0, 2.0], [2.0, 0.0]]), "b": jnp.array([2.0, 0.0])}
    state = rule.init({"a": jnp.zeros(2), "b": jnp.zeros(())})
    one, state = rule.update(tree, state)
    np.testing.assert_allclose(seen[-1], [[9.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(one["a"], [1 / 9 + 2 / 4, 2 / 9], rtol=1e-6)
    np.testing.assert_allclose(rule.update(tree, state)[0]["b"], 2 / 81, rtol=1e-6)


# --- one objective at a time ----------------------------------------------------------------------


def test_m_config_waits_for_all_and_takes_several_at_once():
    """Two gradients with a vector of numbers are two momenta; nothing moves before the third."""
    opt = optimizers.m_config(0.1, n_objectives=3)
    params = jnp.zeros(4)
    g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    state = opt.init(params)
    updates, state = opt.update(g[:2], state, params, index=jnp.array([0, 2]))
    assert (updates == 0).all()
    assert int(state.scale_by_m_config.steps) == 0
    together, _ = opt.update(g[2], state, params, index=1)

    state = opt.init(params)
    for number, row in ((0, g[0]), (2, g[1]), (1, g[2])):
        one_by_one, state = opt.update(row, state, params, index=number)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(together), 0.1, rtol=1e-4)  # the first move is the sign


def test_m_config_with_another_aggregator():
    """The mean of the momenta instead of their ConFIG direction: Adam's first step on the mean."""
    opt = optimizers.m_config(0.1, n_objectives=2, aggregator=optimizers.weighted_sum())
    state = opt.init(jnp.zeros(2))
    _, state = opt.update(jnp.array([1.0, 3.0]), state, index=0)
    updates, _ = opt.update(jnp.array([1.0, -5.0]), state, index=1)
    np.testing.assert_allclose(updates, [-0.1, 0.1], rtol=1e-5)


# --- gradients of several losses ------------------------------------------------------------------

PARAMS = {"trunk": jnp.array([[1.0, 2.0], [0.5, -1.0]]), "heads": {"a": jnp.ones(2), "b": 3.0}}


def losses_of(params):
    features = jnp.tanh(params["trunk"] @ jnp.array([1.0, -0.5]))
    return {"a": jnp.sum(params["heads"]["a"] * features), "b": params["heads"]["b"] * features[0]}


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_gradients_are_those_of_each_loss(chunk_size):
    losses, grads = objective_gradients(losses_of, PARAMS, chunk_size=chunk_size)
    assert losses == losses_of(PARAMS)
    for number, name in enumerate("ab"):
        expected = jax.grad(lambda p, name=name: losses_of(p)[name])(PARAMS)
        found = jax.tree.map(lambda x, i=number: x[i], grads)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, expected)


@pytest.mark.parametrize(
    "shared", [{"trunk": True, "heads": False}, lambda p: {"trunk": True, "heads": False}]
)
def test_only_the_trunk_is_stacked(shared):
    """Heads get the gradient of the sum, which is that of their own loss."""
    _, grads = jax.jit(lambda p: objective_gradients(losses_of, p, shared=shared))(PARAMS)
    _, everything = objective_gradients(losses_of, PARAMS)
    np.testing.assert_allclose(grads["trunk"], everything["trunk"], rtol=1e-6)
    np.testing.assert_allclose(grads["heads"]["a"], everything["heads"]["a"].sum(0), rtol=1e-6)
    np.testing.assert_allclose(grads["heads"]["b"], everything["heads"]["b"].sum(), rtol=1e-6)


def test_trunk_and_heads_train_with_optimizers_of_their_own():
    params = jax.tree.map(jnp.asarray, PARAMS)
    labels = {"trunk": "trunk", "heads": "heads"}
    trunk = gradchain.chain(optimizers.upgrad(), optimizers.adam(0.1))
    opt = optax.partition({"trunk": trunk, "heads": optimizers.sgd(0.1)}, labels)
    _, grads = objective_gradients(losses_of, params, shared={"trunk": True, "heads": False})
    updates, _ = opt.update(grads, opt.init(params), params)
    np.testing.assert_allclose(updates["heads"]["a"], -0.1 * grads["heads"]["a"], rtol=1e-6)
    assert updates["trunk"].shape == (2, 2)
    np.testing.assert_allclose(jnp.abs(updates["trunk"]), 0.1, rtol=1e-3)


def test_auxiliary_values_come_along():
    found, _ = objective_gradients(lambda p: (jnp.stack([p, 2 * p]), "aux"), 1.0, has_aux=True)
    assert found[1] == "aux"


@pytest.mark.parametrize(
    ("losses_fn", "arguments", "message"),
    [
        (lambda p: jnp.ones((2, 2)) * p, {}, "vector or scalars"),
        (lambda p: [], {}, "vector or scalars"),
        (lambda p: jnp.array([1, 2]), {}, "must be real"),
        (lambda p: jnp.stack([p, p]), {"shared": {"no": True}}, "does not fit"),
        (lambda p: jnp.stack([p, p]), {"shared": 0.5}, "booleans"),
        (lambda p: jnp.stack([p, p]), {"chunk_size": 0}, "chunk_size=0"),
    ],
)
def test_bad_losses_are_refused(losses_fn, arguments, message):
    with pytest.raises(ValueError, match=message):
        objective_gradients(losses_fn, 1.0, **arguments)

"""M-FAC, exact Gauss-Newton, lazy Newton methods and the Newton filter against dense algebra."""

import functools

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import observe
from gradchain.optimizers import (
    egn,
    lazy_cubic_newton,
    lazy_newton,
    m_fac,
    stochastic_newton_filter,
)
from gradchain.optimizers.curvature.full.cubic import cubic_subproblem
from gradchain.transforms import (
    flatten_tree,
    flow,
    lift,
    unflatten_tree,
    window,
)
from gradchain.transforms.curvature import spectrum


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


RNG = np.random.default_rng(0)
START = {"w": RNG.normal(size=(2, 2)), "b": RNG.normal(size=3)}  # flattened b first
DATA, LABELS = RNG.normal(size=(12, 7)), RNG.choice([-1.0, 1.0], 12)


def vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def loss(p):
    """A logistic loss, in the flattened params."""
    x = jnp.concatenate([p["b"], p["w"].reshape(-1)])
    return jnp.mean(jax.nn.softplus(-LABELS * (DATA @ x))) + 0.05 * jnp.sum(x**2)


def slope_at(x):
    s = 1 / (1 + np.exp(LABELS * (DATA @ x)))
    return -DATA.T @ (LABELS * s) / 12 + 0.1 * x


def hessian_at(x):
    s = 1 / (1 + np.exp(LABELS * (DATA @ x)))
    return DATA.T @ (DATA * (s * (1 - s))[:, None]) / 12 + 0.1 * np.eye(7)


def loss_at(x):
    return np.mean(np.logaddexp(0, -LABELS * (DATA @ x))) + 0.05 * np.sum(x**2)


def run(opt, steps, start=START, value_fn=loss, **extras):
    """The flattened params after each step."""

    @jax.jit
    def scan(params):
        def body(carry, _):
            p, s = carry
            u, s = opt.update(jax.grad(value_fn)(p), s, p, value_fn=value_fn, **extras)
            p = optax.apply_updates(p, u)
            return (p, s), jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(p)])

        return jax.lax.scan(body, (params, opt.init(params)), length=steps)[1]

    return np.asarray(scan(jax.tree.map(jnp.asarray, start)))


def test_flattening_and_back():
    tree = {"c": jnp.array([1 + 2j, 3 - 1j]), "e": jnp.zeros((0, 2)), "s": jnp.float32(5)}
    opt = flow(lambda g: unflatten_tree(2 * flatten_tree(g), g))
    out, _ = opt.update(tree, opt.init(tree))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == 2 * b)), out, tree))
    assert out["s"].dtype == jnp.float32


def test_window_is_a_ring():
    opt = flow(lambda g: lift(lambda rows: rows[:, 0])(g >> window(3)) * 1.0, name="ring")
    x = jnp.zeros(3)
    state = opt.init(x)
    for t in range(5):
        out, state = opt.update(jnp.full(3, t + 1.0), state)
    np.testing.assert_array_equal(out, [4.0, 5.0, 3.0])


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.6, 0.3)])
def test_m_fac_inverts_the_fisher_matrix(momentum, decay):
    m, damping, rate = 3, 0.05, 0.1
    grads = np.random.default_rng(1).normal(size=(7, 7))
    x, v, kept, wanted = vector(START), 0.0, [], []
    for t in range(7):
        g = grads[t] + decay * x
        kept = [*kept, g][-m:]
        fisher = damping * np.eye(7) + np.stack(kept).T @ np.stack(kept) / m
        u = np.linalg.solve(fisher, g)
        v = momentum * v + (1 - momentum) * u
        x = x - rate * v
        wanted.append(x)
    opt = m_fac(rate, m, damping, momentum, decay)
    params = jax.tree.map(jnp.asarray, START)
    state, update = opt.init(params), jax.jit(opt.update)
    for t in range(7):
        g = {"b": grads[t][:3], "w": grads[t][3:].reshape(2, 2)}
        u, state = update(g, state, params)
        params = optax.apply_updates(params, u)
        np.testing.assert_allclose(vector(params), wanted[t], rtol=1e-10)


def test_m_fac_keeps_its_digits_in_float32():
    """With damping 1e-5 a difference of large terms would have none left."""
    g = jnp.asarray(np.random.default_rng(2).normal(size=(6, 50)), jnp.float32)
    opt = m_fac(1.0, 4, 1e-5)
    state, update = opt.init(g[0]), jax.jit(opt.update)
    for row in g:
        u, state = update(row, state, row)
    kept = np.asarray(g[2:], np.float64)
    exact = np.linalg.solve(1e-5 * np.eye(50) + kept.T @ kept / 4, kept[-1])
    np.testing.assert_allclose(u, -exact, rtol=1e-4, atol=1e-5)


def test_m_fac_in_half_precision_and_with_bad_gradients():
    g = jnp.asarray(np.random.default_rng(3).normal(size=(5, 6)))
    opt = observe(m_fac(1.0, 3, 0.1, window_dtype=jnp.bfloat16), "gradient_is_finite")
    state = opt.init(g[0])
    update = jax.jit(opt.update)
    for i, row in enumerate(g):
        row = jnp.where(i == 3, jnp.nan, row)
        u, state = update(row, state, row)
        assert bool(gradchain.observed(state)["gradient_is_finite"]) is (i != 3)
        assert bool(jnp.all(u == 0)) is (i == 3)
    kept = np.asarray(g[jnp.array([2, 4])].astype(jnp.bfloat16), np.float64)
    exact = np.linalg.solve(0.1 * np.eye(6) + kept.T @ kept / 3, kept[-1])
    np.testing.assert_allclose(u, -exact, rtol=1e-10)


def test_m_fac_leaves_masked_leaves_out_of_the_fisher_matrix():
    grads = jax.tree.map(jnp.asarray, START)
    opt = m_fac(1.0, 3, 0.1, trainable={"w": True, "b": False})
    u, _ = jax.jit(opt.update)(grads, opt.init(grads), grads)
    alone = m_fac(1.0, 3, 0.1)
    wanted, _ = jax.jit(alone.update)(grads["w"], alone.init(grads["w"]), grads["w"])
    np.testing.assert_allclose(u["w"], wanted)
    np.testing.assert_array_equal(u["b"], 0)


INPUTS, TARGETS = RNG.normal(size=(5, 3)), RNG.normal(size=5)
NET = {"a": RNG.normal(size=(3, 2)), "c": RNG.normal(size=(2, 3))}


def outputs(p):
    return jnp.tanh(INPUTS @ p["a"]) @ p["c"]


def batch_loss(kind):
    if kind == "ce":
        return lambda o: -jnp.mean(jax.nn.log_softmax(o)[jnp.arange(5), jnp.array([0, 2, 1, 1, 0])])
    if kind == "bce":
        return lambda o: jnp.mean(optax.sigmoid_binary_cross_entropy(o, TARGETS > 0))
    return lambda o: 0.5 * jnp.mean((o - TARGETS) ** 2)


def model(kind):
    return outputs if kind == "ce" else lambda p: outputs(p)[:, 0]


@jax.jit
def outputs_and_jacobian(x):
    unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, NET))[1]
    fn = lambda v: outputs(unravel(v))  # noqa: E731
    return fn(x), jax.jacobian(fn)(x)


def dense_direction(kind, x, damping):
    """-((1/B) J^T Q J + damping I)^{-1} (1/B) J^T r from the card's r and Q."""
    o, jac = jax.tree.map(np.asarray, outputs_and_jacobian(jnp.asarray(x)))
    if kind != "ce":
        o, jac = o[:, 0], jac[:, 0]
    jac = jac.reshape(o.size, -1)
    if kind == "mse":
        r, q = o - TARGETS, np.eye(5)
    elif kind == "bce":
        p = 1 / (1 + np.exp(-o))
        r, q = p - (TARGETS > 0), np.diag(p * (1 - p))
    else:
        p = np.exp(o) / np.exp(o).sum(1, keepdims=True)
        r = (p - np.eye(3)[[0, 2, 1, 1, 0]]).reshape(-1)
        q = np.zeros((15, 15))
        for i in range(5):
            q[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = np.diag(p[i]) - np.outer(p[i], p[i])
    gauss_newton = jac.T @ q @ jac / 5
    grad = jac.T @ r / 5
    return -np.linalg.solve(gauss_newton + damping * np.eye(len(x)), grad), grad, gauss_newton


@pytest.mark.parametrize("kind", ["mse", "ce", "bce"])
@pytest.mark.parametrize(("search", "adaptive"), [(False, False), (True, False), (True, True)])
def test_egn_in_all_forms(kind, search, adaptive):
    rate, damping, momentum = (4.0 if search else 0.7), 0.02, 0.4
    aggressiveness, shrink, grow, most = 0.3, 0.6, 1.7, 4
    unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, NET))[1]

    f = jax.jit(lambda x: batch_loss(kind)(model(kind)(unravel(x))))

    x, v, alpha, lam, wanted = vector(NET), 0.0, rate, damping, []
    for t in range(1, 6):
        d, grad, gauss_newton = dense_direction(kind, x, lam)
        v = momentum * v + (1 - momentum) * d
        d = v / (1 - momentum**t)
        if search:
            alpha = min(alpha * grow, rate)
            for _ in range(most):
                decrease = float(f(x)) - float(f(x + alpha * d)) + np.finfo(float).eps
                if -alpha * (1 - aggressiveness) * (grad @ d) <= decrease:
                    break
                alpha = min(alpha * shrink, rate)
        if adaptive:
            u = alpha * d
            rho = float(f(x + u) - f(x)) / (grad @ u + u @ gauss_newton @ u / 2)
            lam *= 1.01 if rho < 0.25 else 0.99 if rho > 0.75 else 1.0
        x = x + alpha * d
        wanted.append(x)
    opt = egn(rate, damping, kind, momentum, search, aggressiveness, shrink, grow, most, adaptive)
    got = run(
        opt,
        5,
        NET,
        lambda p: batch_loss(kind)(model(kind)(p)),
        outputs_fn=model(kind),
        outputs_loss_fn=batch_loss(kind),
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", ["mse", "ce", "bce"])
def test_egn_with_more_outputs_than_params(kind):
    x = jnp.asarray(np.random.default_rng(3).normal(size=(9, 2)))
    classes = {"ce": 3}.get(kind, 1)
    params = jnp.asarray(np.random.default_rng(4).normal(size=(2, classes)))

    def outputs(p):
        o = jnp.tanh(x @ p)
        return o if kind == "ce" else o[:, 0]

    def loss(o):
        if kind == "ce":
            return -jnp.mean(jax.nn.log_softmax(o)[:, 1])
        return jnp.mean(jnp.logaddexp(0, o) if kind == "bce" else (o - 1) ** 2 / 2)

    opt = egn(0.7, damping=0.02, loss=kind)

    @jax.jit
    def found_and_wanted(params):
        closures = {"outputs_fn": outputs, "outputs_loss_fn": loss}
        u, _ = opt.update(params, opt.init(params), params, **closures)
        o = outputs(params)
        jac = jax.jacobian(outputs)(params).reshape(o.size, -1)
        q = jax.hessian(loss)(o).reshape(o.size, o.size)
        matrix = jac.T @ q @ jac + 0.02 * jnp.eye(params.size)
        return u.ravel(), -0.7 * jnp.linalg.solve(matrix, jac.T @ jax.grad(loss)(o).ravel())

    np.testing.assert_allclose(*found_and_wanted(params), rtol=1e-10)


def test_egn_searches_from_the_first_positive_rate():
    """A step of 0, where a warm-up starts, would never grow by a factor."""
    params = jnp.array([3.0, 1.0])
    closures = {"outputs_fn": lambda x: x, "outputs_loss_fn": lambda o: jnp.mean(o**2)}
    opt = observe(egn(lambda count: 0.5 * count, line_search=True), "step_size")
    state, steps = opt.init(params), []
    for _ in range(3):
        _, state = opt.update(params, state, params, **closures)
        steps.append(float(gradchain.observed(state)["step_size"]))
    np.testing.assert_allclose(steps, [0.0, 0.5, 0.75])


def test_egn_heeds_the_factor_of_the_loss():
    """Without its 1/2 a squared error has twice the curvature, and the same Newton step."""
    params = jnp.array([3.0, 1.0])
    opt = egn(1.0, damping=1e-12)
    u, _ = opt.update(
        params,
        opt.init(params),
        params,
        outputs_fn=lambda x: x,
        outputs_loss_fn=lambda o: jnp.mean(o**2),
    )
    np.testing.assert_allclose(u, -params, rtol=1e-9)


@pytest.mark.parametrize("size", [1e8, 1e18])
def test_egn_is_right_where_rounding_exceeds_the_damping(size):
    """Outputs that all depend on one sum: the matrix of the rest is rounding, or singular."""
    params, opt = jnp.array([3.0, 1.0, -2.0], jnp.float32), egn(1.0)
    outputs = jnp.arange(1, 3, dtype=jnp.float32)
    u, _ = opt.update(
        params,
        opt.init(params),
        params,
        outputs_fn=lambda x: outputs * jnp.sum(x),
        outputs_loss_fn=lambda o: np.float32(size) * jnp.mean(o**2),
    )
    np.testing.assert_allclose(u, np.full(3, -2 / 3), rtol=1e-4)


def test_egn_survives_a_jacobian_that_is_not_finite():
    params = jnp.array([1.0, 0.0])
    opt = observe(egn(1.0, momentum=0.5), "curvature_is_finite")
    u, state = opt.update(
        params,
        opt.init(params),
        params,
        outputs_fn=jnp.sqrt,
        outputs_loss_fn=lambda o: jnp.mean(o**2),
    )
    assert not gradchain.observed(state)["curvature_is_finite"]
    np.testing.assert_array_equal(u, 0)


@pytest.mark.parametrize(
    ("kind", "interval"), [("gradient", 3), ("constant", 1), ("gradient", None)]
)
def test_lazy_newton(kind, interval):
    rate, m, damping = 0.8, 0.5, 0.3
    x, wanted = vector(START), []
    for t in range(1, 10):
        if (t - 1) % (interval or 7) == 0:
            h = hessian_at(x)
        g = slope_at(x)
        lam = np.sqrt(m * np.linalg.norm(g)) if kind == "gradient" else damping
        x = x - rate * np.linalg.solve(h + lam * np.eye(7), g)
        wanted.append(x)
    got = run(lazy_newton(rate, m, interval, kind, damping), 9)
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


def test_lazy_newton_stays_at_a_minimum_and_leaves_flat_directions():
    params = {"used": jnp.array([2.0]), "unused": jnp.array([5.0])}

    def flat(p):
        return jnp.sum(p["used"] ** 2)

    opt = lazy_newton(m=0.0)
    update = jax.jit(functools.partial(opt.update, value_fn=flat))
    u, state = update(jax.grad(flat)(params), opt.init(params), params)
    assert u == {"used": jnp.array([-2.0]), "unused": jnp.array([0.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    u, _ = update(zeros, state, zeros)
    assert u == zeros


@pytest.mark.parametrize("build", [lazy_newton, lazy_cubic_newton, stochastic_newton_filter])
def test_a_hessian_that_is_not_finite_moves_nothing(build):
    params = {"a": jnp.array([0.0, 1.0]), "b": jnp.array([1.0])}

    def cusp(p):
        return jnp.sum(jnp.sqrt(p["a"])) + jnp.sum(p["b"] ** 2)

    opt = observe(build(), "curvature_is_finite")
    grads = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(lambda state: opt.update(grads, state, params, value_fn=cusp))
    u, state = update(opt.init(params))
    assert not gradchain.observed(state)["curvature_is_finite"]
    assert all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(u))
    with pytest.raises(ValueError, match="value_fn must return a scalar loss"):
        opt.update(grads, state, params, value_fn=lambda p: p["a"])
    with pytest.raises(ValueError, match="value_fn"):
        opt.update(grads, state, params)


@pytest.mark.parametrize("build", [lazy_newton, lazy_cubic_newton, stochastic_newton_filter])
def test_masked_hessians_are_those_of_the_chosen_leaves(build):
    params = jax.tree.map(jnp.asarray, START)
    grads = jax.grad(loss)(params)
    opt = build(trainable={"w": True, "b": False})

    @jax.jit
    def both():
        u, _ = opt.update(grads, opt.init(params), params, value_fn=loss)
        alone, w = build(), params["w"]
        only_w = lambda w: loss({"w": w, "b": params["b"]})  # noqa: E731
        return u, alone.update(grads["w"], alone.init(w), w, value_fn=only_w)[0]

    u, wanted = both()
    np.testing.assert_allclose(u["w"], wanted, rtol=1e-10)
    np.testing.assert_array_equal(u["b"], 0)


@jax.jit
def minimiser(h, g, m):
    opt = flow(lambda x: cubic_subproblem(lift(lambda _: h)(x) >> spectrum, m, x))
    return opt.update(g, opt.init(g))[0]


def solve_cubic(h, g, m):
    return np.asarray(minimiser(jnp.asarray(h), jnp.asarray(g), m))


def rotated(values, seed=4):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    return basis @ np.diag(values) @ basis.T, basis


@pytest.mark.parametrize("m", [1e-3, 2.0, 1e4])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e5])
@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 30.0], [-3.0, 0.5, 2.0], [0.0, 1.0, 1e6], [-2.0, -2.0, -1.0]]
)
def test_cubic_subproblem_is_solved_to_its_last_digits(values, size, m):
    """g + H h + (m/2)|h| h = 0, and H + (m/2)|h| I has no negative eigenvalue."""
    h, _ = rotated(np.array(values))
    g = size * np.array([0.3, -1.0, 0.7])
    step = solve_cubic(h, g, m)
    shift = m / 2 * np.linalg.norm(step)
    residual = g + h @ step + shift * step
    scale = np.linalg.norm(g) + (max(np.abs(values)) + shift) * np.linalg.norm(step)
    assert np.linalg.norm(residual) < 1e-14 * scale
    assert shift + min(values) >= -1e-12 * max(np.abs(values))


def test_the_search_for_the_length_ends_where_it_has_found_it():
    h, g = rotated(np.array([-3.0, 0.5, 2.0]))[0], np.array([0.3, -1.0, 0.7])
    params = {"b": jnp.zeros(3)}
    for iterations, solved in ((1, False), (2, True), (9, True)):
        opt = lazy_cubic_newton(1.0, 2.0, 1, solver_iterations=iterations)
        step, _ = opt.update(
            {"b": g}, opt.init(params), params, value_fn=lambda p: p["b"] @ h @ p["b"] / 2
        )
        x = step["b"]
        residual = g + h @ x + np.linalg.norm(x) * x
        assert (np.linalg.norm(residual) < 1e-12) == solved


def test_cubic_subproblem_in_the_hard_case():
    h, basis = rotated(np.array([-3.0, 0.5, 2.0]))
    for g in (np.zeros(3), 0.1 * basis[:, 2], 0.1 * basis[:, 2] + 1e-13 * basis[:, 0]):
        step = solve_cubic(h, g, 2.0)
        np.testing.assert_allclose(np.linalg.norm(step), 3.0, rtol=1e-9)  # -2 mu_min / m
        np.testing.assert_allclose(g + h @ step + 3.0 * step, 0, atol=1e-9)
    np.testing.assert_array_equal(solve_cubic(np.eye(3), np.zeros(3), 2.0), 0)


def test_lazy_cubic_newton():
    """Two settings of the interval, and a Hessian that is negative at the start."""

    def bumpy(p):
        return loss(p) - 2.0 * jnp.sum(jnp.exp(-jnp.square(p["b"]) - 0.1))

    flat_grad = jax.jit(jax.grad(lambda x: bumpy({"b": x[:3], "w": x[3:].reshape(2, 2)})))
    flat_hessian = jax.jit(jax.jacobian(flat_grad))
    for interval in (2, None):
        x, wanted = vector(START), []
        for t in range(1, 9):
            if (t - 1) % (interval or 7) == 0:
                h = np.asarray(flat_hessian(jnp.asarray(x)))
            m = 1.0 + t  # the schedule
            g = np.asarray(flat_grad(jnp.asarray(x)))
            mu, v = np.linalg.eigh(h)
            c = v.T @ g
            low, high = max(0.0, -2 * mu[0] / m), 1e3
            for _ in range(200):
                r = (low + high) / 2
                short = np.linalg.norm(c / (mu + m * r / 2)) < r
                low, high = (low, r) if short else (r, high)
            x = x - 0.9 * v @ (c / (mu + m * r / 2))
            wanted.append(x)
        opt = lazy_cubic_newton(0.9, lambda count: 2.0 + count, interval)
        np.testing.assert_allclose(run(opt, 8, value_fn=bumpy), wanted, rtol=1e-8)


@pytest.mark.parametrize(("search", "noise"), [(True, 0.5), (False, 0.05), (True, 20.0)])
def test_stochastic_newton_filter(search, noise):
    decay, ridge, halvings, enough, rate = 0.6, 1e-3, 3, 0.8, 0.9
    prior = (1 - decay**2) / noise * np.eye(7)
    x, wanted, added = vector(START), [], []
    for t in range(1, 6):
        g, h = slope_at(x), hessian_at(x)
        if t == 1:
            mean, cov = g, h
        else:
            prediction = np.linalg.inv(decay**2 * cov + noise * np.eye(7))
            q = np.linalg.inv(h)
            added.append(np.any(np.linalg.eigvalsh(q - prior) <= 1e-6))
            if added[-1]:
                q = q + prior
            cov = np.linalg.inv(prediction + q - prior)
            mean = cov @ (prediction @ (decay * mean) + q @ g)
        p = -np.linalg.solve(cov + ridge * np.eye(7), mean)
        s = 1.0
        if search:
            for _ in range(halvings):
                if loss_at(x + s * p) - loss_at(x) <= enough * s * (g @ p):
                    break
                s /= 2
        x = x + rate * s * p
        wanted.append(x)
    assert any(added) == (noise < 0.5)  # both branches of the measurement are met
    opt = stochastic_newton_filter(rate, decay, noise, ridge, search, halvings, enough)
    np.testing.assert_allclose(run(opt, 5), wanted, rtol=1e-8)


@pytest.mark.parametrize("search", [True, False])
def test_newton_filter_leaves_out_a_step_that_blows_the_loss_up(search):
    """A nearly flat, non-convex direction: the last step of the search would go to 1e7."""
    params = {"a": jnp.array([1.0]), "b": jnp.array([1.0])}

    def steep(p):
        return jnp.sum(p["a"] ** 2 + 1e-9 * (p["b"] + jnp.exp(p["b"]) * 1e-3))

    grads = {"a": jnp.array([2.0]), "b": jnp.array([-1e-3])}
    opt = observe(stochastic_newton_filter(line_search=search), "loss_is_bounded", "step_size")
    u, state = jax.jit(lambda s: opt.update(grads, s, params, value_fn=steep))(opt.init(params))
    seen = gradchain.observed(state)
    assert not seen["loss_is_bounded"]
    assert seen["step_size"] == 0
    assert all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(u))


def test_bad_choices_are_refused():
    with pytest.raises(ValueError, match="loss"):
        egn(1.0, loss="hinge")
    with pytest.raises(ValueError, match="regularization"):
        lazy_newton(1.0, regularization="none")
    with pytest.raises(ValueError, match="decay"):
        stochastic_newton_filter(1.0, decay=1.0)
    with pytest.raises(ValueError, match="num_grads"):
        m_fac(1.0, num_grads=0)

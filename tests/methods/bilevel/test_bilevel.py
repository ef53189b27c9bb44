"""Bilevel steppers on a quadratic problem, whose hyper-gradient is known; trees, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain.catalogue import METHODS

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 4))
H, B, R = A @ A.T / 4 + np.eye(4), RNG.normal(size=(4, 3)), RNG.normal(size=4)
X, Y = RNG.normal(size=3), RNG.normal(size=4)


def upper(x, y):
    return jnp.sum((y - R) ** 2) / 2 + 0.1 * jnp.sum(x**2)


def lower(x, y):
    return y @ H @ y / 2 - y @ (B @ x)


def solved(x):
    return np.linalg.solve(H, B @ x)


def exact(x):
    """The gradient of upper(x, H^{-1} B x)."""
    return 0.2 * x + B.T @ np.linalg.solve(H, solved(x) - R)


def best():
    k = np.linalg.solve(H, B)
    return np.linalg.solve(0.2 * np.eye(3) + k.T @ k, k.T @ R)


def descended(times):
    def solve(x):
        body = lambda _, y: y - 0.2 * jax.grad(lower, argnums=1)(x, y)  # noqa: E731
        return jax.lax.fori_loop(0, times, body, jnp.asarray(Y)), None

    return solve


PIECES = {
    "neumann": o.ift_neumann(0.2, terms=300),
    "cg": o.conjugate_gradient_hypergradient(tol=1e-12),
    "unrolled": o.unrolled_hypergradient(),
}


@pytest.mark.parametrize("name", PIECES)
def test_the_pieces_give_the_exact_hypergradient(name):
    found, y, _ = jax.jit(lambda x: PIECES[name](upper, lower, x, descended(300)))(X)
    np.testing.assert_allclose(found, exact(X), rtol=1e-7)
    np.testing.assert_allclose(y, solved(X), rtol=1e-7)


def test_conjugate_gradients_of_losses_of_any_size():
    """In float32, where the products of two small gradients are no numbers."""
    h, b, r, x, y = (jnp.asarray(a, jnp.float32) for a in (H, B, R, X, solved(X)))

    @jax.jit
    def found(size):
        up = lambda x, y: size * (jnp.sum((y - r) ** 2) / 2 + 0.1 * jnp.sum(x**2))  # noqa: E731
        low = lambda x, y: size * (y @ h @ y / 2 - y @ (b @ x))  # noqa: E731
        there = lambda _: (y, None)  # noqa: E731
        exhausted = o.implicit_hypergradient(
            lambda y, x: low(x, y), lambda y, x: up(x, y), y, x, 1.0, 20, "cg"
        )
        return o.conjugate_gradient_hypergradient()(up, low, x, there)[0], exhausted

    for size in (1e-30, 1e-16, 1.0, 1e15):
        for gradient in found(jnp.float32(size)):
            np.testing.assert_allclose(gradient / size, exact(X), rtol=1e-4)


def test_the_function_of_the_card_by_each_of_its_methods():
    train, val = (lambda w, x: lower(x, w)), (lambda w, x: upper(x, w))
    w = solved(X)

    def found(**settings):
        return o.implicit_hypergradient(train, val, w, X, 0.2, **settings)

    np.testing.assert_allclose(found(terms=300), exact(X), rtol=1e-8)
    np.testing.assert_allclose(found(terms=10, method="cg"), exact(X), rtol=1e-8)
    identity = 0.2 * X + B.T @ (w - R)
    np.testing.assert_allclose(found(method="identity"), identity, rtol=1e-10)
    for terms in (0, 3):
        powers = [np.linalg.matrix_power(np.eye(4) - 0.2 * H, j) for j in range(terms + 1)]
        wanted = 0.2 * X + 0.2 * B.T @ sum(powers) @ (w - R)
        np.testing.assert_allclose(found(terms=terms), wanted, rtol=1e-10)


def run(stepper, state, steps):
    body = lambda state, _: (stepper.step(state, upper, lower), None)  # noqa: E731
    return jax.jit(lambda state: jax.lax.scan(body, state, length=steps)[0])(state)


@pytest.mark.parametrize("name", PIECES)
def test_any_optimizers_reach_the_solution(name):
    stepper = o.bilevel(o.adam(optax.cosine_decay_schedule(0.1, 400)), o.sgd(0.2), PIECES[name], 8)
    state = run(stepper, stepper.init(X, Y), 400)
    np.testing.assert_allclose(state.x, best(), atol=2e-2 if name == "unrolled" else 1e-5)
    assert int(optax.tree.get(state.upper_state, "count")) == 400


def test_an_inner_optimizer_finds_the_value_and_the_closure_of_its_level():
    stepper = o.bilevel(o.sgd(0.05), o.armijo(1.0), o.conjugate_gradient_hypergradient(), 3)
    state = run(stepper, stepper.init(X, Y), 300)
    np.testing.assert_allclose(state.x, best(), atol=1e-2)


def test_f2sa_nears_the_solution_as_the_multiplier_grows():
    slower = lambda count: 0.3 / (1 + 0.1 * count)  # noqa: E731
    stepper = o.f2sa(slower, 0.2, upper_ratio=0.5, inner_steps=5)
    state = run(stepper, stepper.init(X, Y), 3000)
    np.testing.assert_allclose(state.x, best(), atol=3e-2)
    np.testing.assert_allclose(state.multiplier, 1.0 + 0.1 * 3000)


def test_bo_rep_goes_at_its_rate_and_moves_the_lower_level_rarely():
    stepper = o.bo_rep(0.03, update_interval=3, lower_steps=4, refine_steps=7, eps=0.2)
    state = stepper.init(X, Y, upper, lower)
    y = np.array(Y)
    for _ in range(7):
        y = y - 0.1 * (H @ y - B @ X)
    np.testing.assert_allclose(state.y, y, rtol=1e-12)
    step = jax.jit(lambda s: stepper.step(s, upper, lower))
    moves = []
    for _ in range(7):
        before, state = state, step(state)
        moves.append(bool(np.any(before.y != state.y)))
        size = np.linalg.norm(state.mu)
        np.testing.assert_allclose(state.x - before.x, -0.03 * state.mu / (size + 0.2), rtol=1e-8)
    assert moves == [False, False, False, True, False, False, True]
    falling = optax.cosine_decay_schedule(0.05, 1500)
    stepper = o.bo_rep(falling)
    state = run(stepper, stepper.init(X, Y, upper, lower), 1500)
    np.testing.assert_allclose(state.x, best(), atol=1e-2)


def test_stn_follows_a_transcription_with_the_noise_handed_in():
    """Two steps down in the response, one up in x and its deviations; x rests in the warm-up."""
    tau, rate, up = 0.05, 0.04, 0.1
    noise = lambda key, count, x: 0.5 + 0.1 * count + jnp.arange(3.0)  # noqa: E731
    stepper = o.stn(
        o.sgd(up), o.sgd(rate), entropy_weight=tau, warmup_steps=1, noise_fn=noise, num_samples=2
    )
    state = stepper.init(X, Y)
    w_0, w_1, v = (np.array(leaf) for leaf in state.best_response)
    np.testing.assert_array_equal(abs(w_1), 1)
    x, s = np.array(X), np.log(np.expm1(np.full(3, 0.5)))
    for count in range(3):
        e = 0.5 + 0.1 * count + np.arange(3)
        there = x + np.log1p(np.exp(s)) * e
        for _ in range(2):
            gate = there @ v
            r = H @ (w_0 + w_1 * gate) - B @ there
            w_0, w_1, v = (
                w_0 - rate * r,
                w_1 - rate * r * gate,
                v - rate * np.outer(there, r * w_1),
            )
        if count >= 1:
            slope = 0.2 * there + v @ (w_1 * (w_0 + w_1 * (there @ v) - R))
            sigma, softer = np.log1p(np.exp(s)), 1 / (1 + np.exp(-s))
            x, s = x - up * slope, s - up * softer * (slope * e - tau / sigma)
        state = stepper.step(state, upper, lower)
        np.testing.assert_allclose(state.x, x, rtol=1e-12)
        np.testing.assert_allclose(state.scale, s, rtol=1e-12)
        np.testing.assert_allclose(state.y, w_0 + w_1 * (x @ v), rtol=1e-11)
    assert int(state.count) == 3


def test_stn_learns_the_response_the_solution_and_how_far_to_look():
    """Of a quadratic, sigma is sqrt(tau / curvature) of the upper loss along the response."""
    rates = (optax.cosine_decay_schedule(rate, 1500) for rate in (0.05, 0.1))
    upper_tx, lower_tx = o.adam(next(rates)), o.sgd(next(rates))
    stepper = o.stn(upper_tx, lower_tx, train_steps=4, entropy_weight=0.01)
    state = run(stepper, stepper.init(X, Y), 1500)
    np.testing.assert_allclose(state.x, best(), atol=2e-2)
    np.testing.assert_allclose(state.y, solved(state.x), atol=2e-3)
    k = np.linalg.solve(H, B)
    wanted = np.sqrt(0.01 / (0.2 + np.sum(k**2, axis=0)))
    np.testing.assert_allclose(jax.nn.softplus(state.scale), wanted, rtol=0.15)
    _, w_1, v = state.best_response
    np.testing.assert_allclose((v * w_1).T, k, atol=2e-2)


STEPPERS = {
    name: entry
    for name, entry in METHODS.items()
    if entry.family == "bilevel" and entry.kind == "stepper"
}


def tree_losses():
    def up(x, y):
        return jnp.sum((y["w"] - 1.0) ** 2) + jnp.sum(x["a"] ** 2) + 0.1 * jnp.sum(y["b"] ** 2)

    def low(x, y):
        pull = jnp.sum((y["w"] - x["a"]) ** 2) / 2
        return pull + jnp.sum(jnp.exp(x["c"]) * y["b"] ** 2) + jnp.sum(y["b"])

    return up, low


@pytest.mark.parametrize("name", STEPPERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_stepper_on_trees_keeps_structure_dtypes_and_its_own_arrays(name, dtype):
    """Compiled once, donated, in the dtypes of the variables; the loss falls."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        check_on_trees(STEPPERS[name].build(), name, dtype)


@pytest.mark.parametrize("name", PIECES)
def test_every_piece_takes_variables_of_several_dtypes(name):
    with jax.numpy_dtype_promotion("strict"):
        x = jnp.ones(2, jnp.bfloat16)
        wide = lambda v: v.astype(jnp.float32)  # noqa: E731
        up = lambda x, y: jnp.sum(y["a"] ** 2) + jnp.sum(wide(y["b"]))  # noqa: E731
        low = lambda x, y: jnp.sum((y["a"] - wide(x)) ** 2) + jnp.sum(wide(y["b"] - x) ** 2)  # noqa: E731
        solution = lambda x: ({"a": wide(x), "b": x}, None)  # noqa: E731
        found = jax.jit(lambda x: PIECES[name](up, low, x, solution)[0])(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), 3.0)


def check_on_trees(stepper, name, dtype):
    up, low = tree_losses()
    x = {"a": jnp.zeros(3, dtype), "c": jnp.zeros((), dtype)}
    y = {"w": jnp.zeros(3, dtype), "b": jnp.full(2, -0.5, dtype), "none": None}
    state = stepper.init(x, y, *((up, low) if name == "bo_rep" else ()))
    kinds = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    step = jax.jit(lambda s: stepper.step(s, up, low), donate_argnums=0)
    first = float(up(state.x, state.y))
    for _ in range(20):
        state = step(state)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == kinds
    assert step._cache_size() == 1
    assert jax.tree.map(lambda leaf: leaf.dtype, state.x) == {"a": dtype, "c": dtype}
    assert float(up(state.x, state.y)) < first
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state))
    assert not x["a"].is_deleted()


@pytest.mark.parametrize("name", STEPPERS)
def test_what_is_no_loss_or_no_variable_is_refused_by_name(name):
    stepper = STEPPERS[name].build()
    both = (upper, lower) if name == "bo_rep" else ()
    with pytest.raises(ValueError, match=f"{name}: upper must be a tree of real arrays"):
        stepper.init(np.arange(3), Y, *both)
    state = stepper.init(X, Y, *both)
    with pytest.raises(ValueError, match=f"{name}: lower_loss must be a function"):
        stepper.step(state, upper, 1.0)
    with pytest.raises(ValueError, match=f"{name}: upper_loss must return a real scalar"):
        stepper.step(state, lambda x, y: x, lower)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: o.f2sa(0.1, 0.1, inner_steps=0), "f2sa: inner_steps=0"),
        (lambda: o.f2sa(0.1, 0.1, multiplier=0.0), "f2sa: multiplier=0"),
        (lambda: o.bo_rep(0.1, b1=1.0), "bo_rep: b1=1"),
        (lambda: o.ift_neumann(0.0), "ift_neumann: step=0"),
        (lambda: o.neumann_series(0.1, terms=-1), "terms=-1"),
        (lambda: o.bilevel(o.sgd(1.0), o.sgd(1.0), PIECES["cg"], 0), "bilevel: lower_steps=0"),
        (
            lambda: o.implicit_hypergradient(lambda w, x: w, lambda w, x: jnp.sum(w), Y, X, 0.1),
            "train_fn must return a real scalar",
        ),
        (
            lambda: o.implicit_hypergradient(
                lambda w, x: lower(x, w), lambda w, x: upper(x, w), Y, X, 0.1, 0, "cg"
            ),
            "terms=0 must be at least 1",
        ),
    ],
)
def test_refusals(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()

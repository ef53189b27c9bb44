"""Matrix signals, and leaves with several sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import transforms as t
from gradchain.transforms import FlowError, flow


def run(step, *gradients):
    """What the flow gives for each gradient in turn; the params are zeros."""
    opt = flow(step)
    params = jax.tree.map(jnp.zeros_like, gradients[0])
    state, outputs = opt.init(params), []
    for g in gradients:
        u, state = jax.jit(opt.update)(g, state, params)
        outputs.append(u)
    return outputs, state


G = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
STACK = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3, 2)), jnp.float32)


@pytest.mark.parametrize("x", [G, STACK], ids=["matrix", "stack"])
def test_products_and_transposes(x):
    (u,), _ = run(lambda g: g @ (g.T @ g), x)
    np.testing.assert_allclose(u, x @ (jnp.swapaxes(x, -1, -2) @ x), rtol=1e-5)


def test_a_constant_matrix_takes_part():
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]], np.float32)
    (u,), _ = run(lambda g: g @ turn + turn.T[:1] @ g.T @ g * 0, G)
    np.testing.assert_allclose(u, G @ turn, rtol=1e-6)


@pytest.mark.parametrize("step", [lambda g: g.T, lambda g: g @ g], ids=["T", "@"])
def test_what_is_no_matrix_is_named(step):
    opt = flow(step)
    with pytest.raises(FlowError, match=r"shape \(3,\).*split"):
        opt.update(jnp.ones(3), opt.init(jnp.ones(3)))


def test_pairs_are_averaged_and_kept_side_by_side():
    def step(g):
        factors = t.pair(g @ g.T, g.T @ g)
        kept = factors >> t.ema(0.5)
        past = t.delay(factors, name="doubled")
        past << 2 * factors + past
        return kept[0] @ g @ past[1] + t.global_norm(kept) * g

    (_, second), state = run(step, G, 2 * G)
    left, right = G @ G.T, G.T @ G
    kept = 0.25 * left + 0.5 * 4 * left, 0.25 * right + 0.5 * 4 * right
    np.testing.assert_allclose(state.ema[0], kept[0], rtol=1e-5)
    np.testing.assert_allclose(state.ema[1], kept[1], rtol=1e-5)
    np.testing.assert_allclose(state.doubled[1], 2 * right + 8 * right, rtol=1e-5)
    norm = jnp.sqrt(sum(jnp.sum(k**2) for k in kept))
    np.testing.assert_allclose(second, kept[0] @ (2 * G) @ (2 * right) + norm * 2 * G, rtol=1e-5)


def test_functions_treat_sides_alike():
    def step(g):
        sides = t.maximum(t.square(t.pair(g, g.T)), 0.1)
        chosen = t.where(sides > 0.5, sides, -1.0)
        return chosen[0] + chosen[1].T + t.leaf_norm(sides)[0]

    (u,), _ = run(step, G)
    squares = jnp.maximum(G**2, 0.1)
    expected = 2 * jnp.where(squares > 0.5, squares, -1.0) + jnp.linalg.norm(squares)
    np.testing.assert_allclose(u, expected, rtol=1e-6)


def test_lengths_of_axes():
    def step(g):
        return g * t.notation.leaf_size(g, axis=-1) / t.notation.leaf_size(
            g, axis=0
        ) + t.notation.leaf_size(g)

    (u,), _ = run(step, G)
    np.testing.assert_allclose(u, G * 2 / 3 + 6, rtol=1e-6)
    with pytest.raises(FlowError, match="no axis 2"):
        run(lambda g: g * t.notation.leaf_size(g, axis=2), G)


def test_sums_and_initial_params():
    opt = flow(lambda g, params: (g >> t.running_sum()) + t.initial_params() - params)
    x = jnp.array([1.0, -2.0])
    state = opt.init(x)
    for total in (3.0, 6.0, 9.0):
        u, state = opt.update(jnp.full(2, 3.0), state, x + total)
        np.testing.assert_allclose(u, [0.0, 0.0], atol=1e-6)
    assert tuple(opt.needs) == ("params",)


def test_initial_params_are_one_state():
    opt = flow(lambda g: g + t.initial_params() - t.initial_params())
    assert opt.init(jnp.ones(2))._fields == ("initial_params",)


def test_roots_of_the_step_count_are_exact_in_float64():
    with jax.enable_x64(True):
        opt = flow(lambda g: g * t.sqrt(t.step_count() + 1) * t.cbrt(t.step_count() + 2))
        u, _ = opt.update(jnp.ones(1), opt.init(jnp.ones(1)))
        assert float(u[0]) == pytest.approx(2**0.5 * 3 ** (1 / 3), rel=1e-14)


def positive(seed, n):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T


class TestEigenvectors:
    def run(self, matrices, **options):
        with jax.enable_x64(True):
            outputs, _ = run(lambda g: g >> t.eigenvectors(**options), *map(jnp.asarray, matrices))
            return [np.asarray(q) for q in outputs]

    def test_they_start_exact(self):
        m = positive(0, 5)
        (q,) = self.run([m])
        np.testing.assert_allclose(q.T @ q, np.eye(5), atol=1e-12)
        rotated = q.T @ m @ q
        np.testing.assert_allclose(rotated, np.diag(np.diag(rotated)), atol=1e-10)

    def test_they_follow_a_matrix_that_changed(self):
        m = positive(1, 4)
        found = self.run([positive(0, 4), *[m] * 60])
        off = [np.linalg.norm(q.T @ m @ q - np.diag(np.diag(q.T @ m @ q))) for q in found]
        assert off[0] > 0.1
        assert off[1] < off[0]
        assert off[-1] < 1e-6 * np.linalg.norm(m)

    def test_a_step_is_a_product_and_a_decomposition(self):
        first, second = positive(0, 4), positive(1, 4)
        q, new = self.run([first, second])
        order = np.argsort(-np.diag(q.T @ second @ q))
        wanted, upper = np.linalg.qr((second @ q)[:, order])
        np.testing.assert_allclose(new[:, order], wanted * np.sign(np.diag(upper)), atol=1e-10)

    def test_columns_keep_their_places(self):
        a, b = np.diag([1.0, 2.0, 3.0]), np.diag([3.0, 2.0, 1.0])
        for q in self.run([a, b, b]):
            np.testing.assert_allclose(np.abs(q), np.eye(3), atol=1e-12)

    def test_cold_starts_and_bad_matrices(self):
        m = positive(0, 3)
        first, second = self.run([m, 2 * m], warm_start=False)
        np.testing.assert_allclose(np.abs(first), np.abs(second), atol=1e-10)
        kept = self.run([m, np.full((3, 3), np.nan)])
        np.testing.assert_array_equal(*kept)

    def test_all_sides_and_leaves(self):
        def step(g):
            q = t.pair(g @ g.T, g.T @ g) >> t.eigenvectors()
            return q[0].T @ g @ q[1]

        tree = {"a": G, "b": STACK[0].T, "s": STACK}
        (u,), _ = run(step, tree)
        for name, x in tree.items():
            np.testing.assert_allclose(
                jnp.linalg.norm(u[name], axis=(-2, -1)),
                jnp.linalg.norm(x, axis=(-2, -1)),
                rtol=1e-5,
            )
            values = jnp.sort(jnp.abs(u[name]).reshape(*x.shape[:-2], -1), axis=-1)[..., -2:]
            np.testing.assert_allclose(
                values, jnp.linalg.svd(x, compute_uv=False)[..., ::-1], rtol=1e-4
            )

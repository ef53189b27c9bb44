"""The oldest primitives, each alone against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS, close, gradient, once, run
from gradchain import chain, flow
from gradchain.transforms import (
    FlowError,
    debias,
    decay_weights,
    draw_like,
    ema,
    every,
    hessian_vector_product,
    hutchinson,
    lift,
    project,
    scale_by_learning_rate,
    svd_basis,
    trace,
    unproject,
)
from gradchain.transforms.accumulate import one_minus_power

G = [None, *(np.asarray(gradient(t)["a"], np.float64) for t in (1, 2, 3))]
X = np.asarray(PARAMS["a"], np.float64)


def first(outs):
    return [np.asarray(out["a"]) for out in outs]


class TestAverages:
    """ema, debias, trace."""

    def test_ema(self):
        outs = first(run(chain(ema(0.9)))[0])
        m1 = 0.1 * G[1]
        m2 = 0.9 * m1 + 0.1 * G[2]
        np.testing.assert_allclose(outs[0], m1, rtol=1e-6)
        np.testing.assert_allclose(outs[1], m2, rtol=1e-6)

    def test_a_debiased_average_of_a_constant_is_the_constant(self):
        opt = chain(ema(0.99), debias(0.99))
        state = opt.init(PARAMS)
        for _ in range(3):
            out, state = opt.update(PARAMS, state)
            close(out, PARAMS, rtol=2e-6)

    @pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.999999])
    def test_the_bias_correction_has_no_cancellation(self, decay):
        """1 - b^t in float32, for b near 1, is wrong in the first digits when computed plainly."""
        opt = flow(lambda g: g * one_minus_power(decay, g * 0 + 3.0))
        np.testing.assert_allclose(once(opt, jnp.ones(1)), 1 - decay**3, rtol=1e-6)
        traced = jax.jit(lambda b: once(flow(lambda g: g * one_minus_power(b, g + 2)), jnp.ones(1)))
        wide = float(np.float32(decay))
        np.testing.assert_allclose(traced(jnp.float32(decay)), 1 - wide**3, rtol=1e-6)

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_trace_equals_that_of_optax(self, nesterov):
        close(run(chain(trace(0.9, nesterov)))[0], run(optax.trace(0.9, nesterov))[0])

    def test_dampening_spares_the_first_gradient(self):
        outs = first(run(chain(trace(0.9, dampening=0.3)))[0])
        np.testing.assert_allclose(outs[0], G[1], rtol=1e-6)
        np.testing.assert_allclose(outs[1], 0.9 * G[1] + 0.7 * G[2], rtol=1e-6)


class TestDecay:
    """The named forms of weight decay, by their formulas."""

    U, R, W = -0.3, 0.5, 0.1

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ("added", lambda u, x, r, w: u + w * x),
            ("decoupled", lambda u, x, r, w: u - r * w * x),
            ("independent", lambda u, x, r, w: u - w * x),
            ("relative", lambda u, x, r, w: u - r / 0.8 * w * x),
            ("stepped", lambda u, x, r, w: u - r * w * (x + u)),
            ("stepped_independent", lambda u, x, r, w: u - w * (x + u)),
            ("proximal", lambda u, x, r, w: (x + u) / (1 + r * w) - x),
        ],
    )
    @pytest.mark.parametrize("is_scheduled", [False, True])
    def test_forms(self, form, expected, is_scheduled):
        rates = optax.linear_schedule(0.8, 0.2, 2)
        rate = rates if is_scheduled else 0.8
        outs = first(run(chain(decay_weights(self.W, form, learning_rate=rate)))[0])
        for t in (1, 2, 3):
            r = float(rates(t - 1)) if is_scheduled else 0.8
            np.testing.assert_allclose(outs[t - 1], expected(G[t], X, r, self.W), rtol=1e-5)

    def test_decoupled_is_adding_decayed_weights_before_the_rate(self):
        before = chain(decay_weights(0.1), scale_by_learning_rate(0.5))
        after = chain(
            scale_by_learning_rate(0.5), decay_weights(0.1, "decoupled", learning_rate=0.5)
        )
        close(run(before)[0], run(after)[0], rtol=1e-5)

    def test_the_mask_spares_leaves(self):
        mask = {"a": False, "b": {"c": True}}
        for opt in (
            decay_weights(0.1, "decoupled", mask=mask),
            decay_weights(0.1, "decoupled", mask=lambda p: mask),
        ):
            outs, _ = run(chain(opt), steps=1)
            close(outs[0]["a"], gradient(1)["a"])
            assert not jnp.allclose(outs[0]["b"]["c"], gradient(1)["b"]["c"])

    def test_an_unknown_form_is_refused(self):
        with pytest.raises(FlowError, match="form='x' is not one of 'added', 'decoupled'"):
            decay_weights(0.1, "x")


class TestCurvature:
    """Hessian-vector products and diagonals."""

    MATRIX = jnp.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 5.0]])

    def loss(self, params):
        return 0.5 * params @ self.MATRIX @ params

    def test_hessian_vector_product(self):
        opt = flow(lambda g, params, value_fn: hessian_vector_product(value_fn, params, g))
        v = jnp.array([1.0, -1.0, 2.0])
        np.testing.assert_allclose(once(opt, v, value_fn=self.loss), self.MATRIX @ v, rtol=1e-6)

    def test_rademacher_probes_are_exact_on_a_diagonal(self):
        diagonal = jnp.array([1.0, -2.0, 3.0])
        out = once(
            chain(hutchinson()), jnp.ones(3), value_fn=lambda p: jnp.sum(diagonal * p**2) / 2
        )
        np.testing.assert_allclose(out, diagonal, rtol=1e-6)

    @pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
    def test_the_mean_over_many_probes_is_the_diagonal(self, probe):
        opt = chain(hutchinson(num_samples=1, probe=probe))
        params = jnp.ones(3)

        def body(state, _):
            out, state = opt.update(params, state, params, value_fn=self.loss)
            return state, out

        _, outs = jax.lax.scan(body, opt.init(params), length=4000)
        np.testing.assert_allclose(outs.mean(0), jnp.diag(self.MATRIX), atol=0.4)

    def test_given_probes_and_samples(self):
        probes = jnp.array([1.0, 2.0, -1.0])
        opt = chain(hutchinson(sampler=lambda key, count, params: probes))
        out = once(opt, jnp.ones(3), value_fn=self.loss)
        np.testing.assert_allclose(out, probes * (self.MATRIX @ probes), rtol=1e-6)

    def test_a_ready_diagonal_is_passed_on(self):
        out = once(chain(hutchinson()), jnp.ones(3), hessian_diag=jnp.arange(3.0))
        assert out.tolist() == [0.0, 1.0, 2.0]

    @pytest.mark.parametrize(
        ("closure", "message"),
        [
            (None, "value_fn"),
            (3.0, "must be a function"),
            (lambda p: p, "must return a scalar"),
            (lambda p: jnp.sum(p).astype(jnp.int32), "real loss"),
        ],
    )
    def test_bad_closures(self, closure, message):
        with pytest.raises(FlowError, match=message):
            once(chain(hutchinson()), jnp.ones(3), value_fn=closure)


class TestBases:
    """svd_basis, project, unproject."""

    @pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
    @pytest.mark.parametrize("side", ["std", "reverse_std", "left", "right", "full"])
    def test_full_rank_loses_nothing_and_low_rank_is_the_truncated_svd(self, shape, side):
        matrix = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)

        def step(rank):
            def projected(g):
                basis = g >> svd_basis(rank, side)
                return unproject(basis, project(basis, g))

            return flow(projected)

        np.testing.assert_allclose(once(step(min(shape)), matrix), matrix, atol=1e-5)
        u, s, vt = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
        truncated = (u[:, :2] * s[:2]) @ vt[:2]
        np.testing.assert_allclose(once(step(2), matrix), truncated, atol=1e-5)

    def test_signs_are_fixed(self):
        """The same subspace has the same basis, whatever the signs of the matrix."""
        matrix = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)

        ones = lift(lambda x: jnp.ones((2, x.shape[1])), "ones")
        opt = flow(lambda g: unproject(g >> svd_basis(2, "left"), ones(g)))
        np.testing.assert_allclose(once(opt, matrix), once(opt, -matrix), atol=1e-5)

    def test_a_held_basis(self):
        matrix = {"w": jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)), jnp.float32)}

        def step(g):
            basis = g >> every(10, svd_basis(1, "left"))
            return unproject(basis, project(basis, g))

        outs, _ = run(flow(step), steps=2, params=matrix)
        u = np.linalg.svd(np.asarray(gradient(1, matrix)["w"]))[0][:, :1]
        np.testing.assert_allclose(
            outs[1]["w"], u @ u.T @ np.asarray(gradient(2, matrix)["w"]), atol=1e-5
        )


class TestRandom:
    """Draws whose key is in the state."""

    def test_same_key_same_run_and_new_draws_at_every_step(self):
        opt = flow(lambda g: draw_like(g, key=3))
        outs, _ = run(opt, steps=2)
        again, _ = run(flow(lambda g: draw_like(g, key=3)), steps=2)
        other, _ = run(flow(lambda g: draw_like(g, key=4)), steps=2)
        close(outs, again)
        assert not jnp.array_equal(outs[0]["a"], outs[1]["a"])
        assert not jnp.array_equal(outs[0]["a"], other[0]["a"])

    def test_seeds_raw_and_typed_keys_are_the_same(self):
        def build(key):
            return flow(lambda g: draw_like(g, key))

        keys = (5, jax.random.key(5), jax.random.PRNGKey(5))
        runs = [run(build(key), 1)[0] for key in keys]
        close(runs[0], runs[1])
        close(runs[0], runs[2])

    @pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
    def test_distributions(self, distribution):
        params = {"a": jnp.zeros(20000)}
        draws = np.asarray(run(flow(lambda g: draw_like(g, 0, distribution)), 1, params)[0][0]["a"])
        assert abs(draws.mean()) < 0.03
        assert abs(draws.std() - 1) < 0.03
        if distribution == "rademacher":
            assert set(np.unique(draws)) == {-1.0, 1.0}

    def test_leaves_are_independent(self):
        params = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
        out = run(flow(lambda g: draw_like(g, 0)), 1, params)[0][0]
        assert not jnp.array_equal(out["a"], out["b"])

    def test_a_sampler_is_told_key_count_and_params(self):
        def sampler(key, count, params):
            assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
            return jax.tree.map(lambda x: x + count, params)

        outs, _ = run(flow(lambda g, params: draw_like(g, 0, sampler=sampler) + 0 * params), 2)
        close(outs[1], jax.tree.map(lambda x: x + 1, PARAMS))

    def test_the_key_is_state(self):
        state = flow(lambda g: draw_like(g, 7)).init(PARAMS)
        assert state.key.tolist() == jax.random.key_data(jax.random.key(7)).tolist()

"""Measurements beside what they estimate, in dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import measure, observe, observed
from gradchain.catalogue import METHODS
from gradchain.optimizers import adam, sgd
from gradchain.schedules import record_grad_norms
from jax.flatten_util import ravel_pytree
from subjects import strict

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)}
INPUTS, TARGETS = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 2))


def example_loss(params, x, y):
    return jnp.sum(jnp.log(jnp.cosh(x @ params["w"] + params["b"] - y)))


def loss(params):
    return jnp.mean(jax.vmap(example_loss, (None, 0, 0))(params, INPUTS, TARGETS))


def hessian():
    flat, unravel = ravel_pytree(PARAMS)
    return np.asarray(jax.hessian(lambda v: loss(unravel(v)))(flat))


def test_the_spectrum_has_the_moments_of_its_start_vectors_and_all_eigenvalues():
    found = jax.jit(lambda p: measure.hessian_spectrum(loss, p, 8, 4, key=3))(PARAMS)
    np.testing.assert_allclose(found.nodes, [np.linalg.eigvalsh(hessian())] * 4, rtol=1e-8)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-10)
    few = jax.jit(lambda p: measure.hessian_spectrum(loss, p, 3, 4, key=3))(PARAMS)
    for power in range(6):  # exact up to 2 m - 1
        moments = [np.sum(s.weights * s.nodes**power, 1) for s in (few, found)]
        np.testing.assert_allclose(*moments, rtol=1e-9)
    grid = np.linspace(-2, 4, 600)
    assert np.sum(found.density(grid, 0.1)) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


def test_an_exhausted_krylov_space_adds_nothing():
    up, down = lambda x: jnp.sum(x**2), lambda x: -jnp.sum(x**2)
    found = jax.jit(lambda x: measure.hessian_spectrum(up, x, 4))(np.ones(5))
    np.testing.assert_allclose(np.sum(found.weights * found.nodes, 1), 2, rtol=1e-12)
    values, basis = jax.jit(lambda x: measure.hessian_subspace(down, x, 1, 4))(np.ones(5))
    np.testing.assert_allclose(values, -2, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(basis), 1, rtol=1e-12)


def test_the_subspace_is_that_of_the_largest_eigenvalues():
    values, basis = jax.jit(lambda p: measure.hessian_subspace(loss, p, k=3, iters=8))(PARAMS)
    exact, vectors = np.linalg.eigh(hessian())
    np.testing.assert_allclose(values, exact[:-4:-1], rtol=1e-8)
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(basis)
    np.testing.assert_allclose(abs(flat @ vectors[:, :-4:-1]), np.eye(3), atol=1e-7)
    g = jax.grad(loss)(PARAMS)
    inside = np.asarray(flat) @ ravel_pytree(g)[0]
    fraction = np.sum(inside**2) / np.sum(ravel_pytree(g)[0] ** 2)
    fraction_of = jax.jit(measure.gradient_subspace_fraction)
    overlap = jax.jit(measure.subspace_overlap)
    np.testing.assert_allclose(fraction_of(g, basis), fraction)
    turned = jax.tree.map(lambda x: x[jnp.array([2, 0, 1])], basis)
    np.testing.assert_allclose(overlap(basis, turned), 1, rtol=1e-10)
    kept = jax.jit(lambda basis, g: measure.project_to_subspace(basis).update(g, None)[0])(basis, g)
    np.testing.assert_allclose(ravel_pytree(kept)[0], inside @ np.asarray(flat), rtol=1e-10)
    np.testing.assert_allclose(fraction_of(kept, basis), 1, rtol=1e-10)
    one = jax.tree.map(lambda x: x[:1], basis)
    np.testing.assert_allclose(overlap(one, basis), 1 / 3, rtol=1e-10)
    np.testing.assert_allclose(overlap(basis, one), 1, rtol=1e-10)


NORMS = (measure.hessian_trace, measure.hessian_frobenius)


def test_trace_and_norm_of_the_hessian_are_unbiased():
    h = hessian()
    trace, norm = jax.jit(lambda p: [of(loss, p, 4000) for of in NORMS])(PARAMS)
    assert float(trace) == pytest.approx(np.trace(h), rel=0.03)
    assert float(norm) == pytest.approx(np.linalg.norm(h), rel=0.03)


def test_what_is_measured_of_a_loss_does_not_depend_on_its_unit():
    x, curvature = jnp.arange(1, 5, dtype=jnp.float32) / 4, jnp.arange(1, 5, dtype=jnp.float32)

    @jax.jit
    def ask(unit):
        value_fn = lambda x: unit * jnp.sum(curvature * x**2 + x**4)  # noqa: E731
        slope, recorder = jax.grad(value_fn)(x), record_grad_norms(1)
        values, basis = measure.hessian_subspace(value_fn, x, k=2, iters=4)
        of_loss = (*NORMS, measure.sharpness)
        found = [values, recorder.update(slope, recorder.init(x))[1].norms]
        found += [of(value_fn, x) for of in of_loss]
        return [y / unit for y in found], measure.gradient_subspace_fraction(slope, basis)

    wanted = jax.tree.leaves(ask(np.float32(1)))
    for unit in np.float32([1e-30, 1e-16, 1e18, 1e28]):  # of most of which there is no square
        for a, b in zip(jax.tree.leaves(ask(unit)), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


def test_moments_and_noise_of_gradients():
    grads = jax.vmap(jax.grad(example_loss), (None, 0, 0))(PARAMS, INPUTS, TARGETS)
    flat = np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(grads))
    mean, trace, count = measure.gradient_moments(grads)
    np.testing.assert_allclose(ravel_pytree(mean)[0], flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(trace, np.trace(np.cov(flat.T)), rtol=1e-12)
    signal = np.sum(flat.mean(0) ** 2) - trace / count
    noise = measure.gradient_noise(grads, batch_size=4)
    np.testing.assert_allclose(noise, 4 * trace / signal if signal > 0 else np.inf, rtol=1e-10)
    opposite = jnp.array([[1.0], [-1.0]])
    assert np.isinf(measure.gradient_noise(opposite))
    assert float(measure.update_correlation(opposite[0], opposite[1])) == -1
    assert float(measure.update_correlation(opposite[0], 0 * opposite[1])) == 0
    for size in np.float32([1e-30, 1e30]):  # which have no square
        small = jax.tree.map(lambda g, size=size: size * np.asarray(g, np.float32), grads)
        np.testing.assert_allclose(measure.gradient_noise(small, batch_size=4), noise, rtol=1e-4)
        pair = size * opposite.astype(jnp.float32)
        assert float(measure.update_correlation(*pair)) == -1


def test_sharpness_climbs_to_the_edge_of_the_ball_in_the_sharpest_direction():
    quadratic = lambda x: jnp.sum(jnp.array([1.0, 3.0, 9.0]) * x**2) / 2  # noqa: E731
    near = jnp.full(3, 1e-9)
    climbed = jax.jit(lambda x, n: measure.sharpness(quadratic, x, 0.5, n), static_argnums=1)
    one, many = (float(climbed(near, n)) for n in (1, 30))
    assert many == pytest.approx(9 * 0.25 / 2, rel=1e-6)
    assert one < many
    assert float(measure.sharpness(quadratic, jnp.zeros(3))) == 0


def test_every_measurement_is_finite_in_low_precision_and_on_a_flat_loss():
    """Nothing is promoted silently, and no NaN made on the way."""
    flat = lambda p: 0.0 * sum(jnp.sum(x) for x in jax.tree.leaves(p))  # noqa: E731
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    at = (jnp.ones(3, jnp.bfloat16), jnp.ones(2, jnp.bfloat16))
    of_loss = ("hessian_spectrum", "hessian_trace", "hessian_frobenius", "sharpness")
    kinds = {name for name, entry in METHODS.items() if entry.kind == "measurement"}
    assert set(of_loss) <= kinds
    for name in of_loss:
        for value_fn in (flat, lambda p: example_loss(p, *at).astype(jnp.bfloat16)):
            with strict(), jax.debug_nans(True):
                found = jax.jit(lambda p, name=name, f=value_fn: METHODS[name].factory(f, p))(low)
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found)), name


def test_a_training_loop_measures_now_and_then_and_only_what_is_observed():
    calls = []

    def counted(value_fn, params):
        calls.append(1)
        return value_fn(params)

    opt = measure.measured(adam(0.1), {"loss": counted, "flatness": counted}, 3)
    state = opt.init(PARAMS)
    assert jax.tree.structure(state) != jax.tree.structure(observe(opt).init(PARAMS))
    opt.update(PARAMS, state, PARAMS)  # nothing observed, nothing needed
    assert not calls
    watched = observe(opt, "loss")
    params, state, seen = PARAMS, watched.init(PARAMS), []
    update = jax.jit(lambda g, s, p: watched.update(g, s, p, value_fn=loss))
    for _ in range(5):
        seen.append((float(loss(params)), float(observed(state)["loss"])))
        u, state = update(jax.grad(loss)(params), state, params)
        seen[-1] = (seen[-1][0], float(observed(state)["loss"]))
        params = jax.tree.map(jnp.add, params, u)
    assert len(calls) == 1
    exact, kept = zip(*seen, strict=True)
    wanted = [exact[0]] * 3 + [exact[3]] * 2
    np.testing.assert_allclose(kept, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="value_fn"):
        watched.update(PARAMS, watched.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: measure.hessian_trace(loss, {"w": np.arange(3)}), "params must be real arrays"),
        (lambda: measure.sharpness(lambda p: p["w"], PARAMS), "must return a real scalar"),
        (lambda: measure.hessian_subspace(loss, PARAMS, 3, 2), "iters=2 must be from k=3"),
        (lambda: measure.hessian_spectrum(loss, PARAMS, 0), "num_steps=0"),
        (lambda: measure.gradient_moments({"w": np.ones((1, 2))}), "leading axis, of at least 2"),
        (lambda: measure.measured(sgd(0.1), {"not a name": loss}), "not a name"),
    ],
)
def test_refusals(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()

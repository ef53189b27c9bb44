"""TENG on functions that are linear in their params, where its fits are exact; and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import optimizers as o

pytestmark = pytest.mark.usefixtures("x64")

POINTS = np.arange(16) * 2 * np.pi / 16
MODES = np.arange(1.0, 4.0)
DECAY = np.array([0.3, 1.2, 2.7])  # 0.3 k^2


def series(params, x):
    return params["a"] @ jnp.sin(MODES * x) + params["b"] @ jnp.cos(MODES * x)


def heat(u, x):
    return 0.3 * jax.grad(jax.grad(u))(x)


AMPLIFIED = {
    "euler": lambda z: 1 + z,
    "heun": lambda z: 1 + z + z**2 / 2,
    "rk4": lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
}


@pytest.mark.parametrize("integrator", AMPLIFIED)
def test_each_mode_of_the_heat_equation_decays_as_the_scheme_has_it(integrator):
    stepper = o.teng(series, heat, 0.1, integrator, inner_iters=1)
    params = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([0.0, 0.3, 1.0])}
    state = stepper.init(params)
    step = jax.jit(stepper.step)
    for _ in range(3):
        state = step(state, POINTS)
    factor = AMPLIFIED[integrator](-0.1 * DECAY) ** 3
    for name, first in params.items():
        np.testing.assert_allclose(state.params[name], factor * first, atol=1e-12)
    assert float(state.time) == pytest.approx(0.3)
    assert float(state.residual) < 1e-12


def test_a_fit_squares_its_error_at_every_step_and_cuts_small_singular_values():
    u_fn = lambda p, x: jnp.exp(p[0]) * jnp.sin(x) + p[1] * p[2] * jnp.cos(x)  # noqa: E731
    params, best = jnp.array([0.0, 1.0, 1.0]), jnp.array([0.4, 1.2, 1.3])
    values = jax.vmap(u_fn, (None, 0))
    target = values(best, POINTS)
    fit = jax.jit(lambda p: o.teng_step(u_fn, p, target, POINTS, 1))
    errors = []
    for _ in range(6):
        params = fit(params)
        errors.append(float(jnp.max(abs(values(params, POINTS) - target))))
    assert errors[2] < 2 * errors[1] ** 2
    assert errors[3] < 2 * errors[2] ** 2
    # of p[1] and p[2], which are one direction for the outputs, the shorter step is made
    np.testing.assert_allclose(params[1], params[2], rtol=1e-12)
    # of the two singular values one is a quarter of the other, and below the cut
    skew = lambda p, x: p[0] * jnp.sin(x) + p[1] * jnp.cos(x) / 4  # noqa: E731
    ones = jax.vmap(skew, (None, 0))(jnp.ones(2), POINTS)
    cut = o.teng_step(skew, jnp.zeros(2), ones, POINTS, 1, rcond=0.5)
    np.testing.assert_allclose(cut, [1, 0], atol=1e-12)


def test_systems_of_equations_and_float32():
    """A rotation of two values; the params may have few digits."""
    u_fn = lambda p, x: p["w"] @ jnp.array([jnp.sin(x), 1.0])  # noqa: E731
    turn = lambda u, x: jnp.array([[0.0, -1.0], [1.0, 0.0]]) @ u(x)  # noqa: E731
    stepper = o.teng(u_fn, turn, 0.01, "rk4", inner_iters=1)
    w = jnp.array([[1.0, 0.5], [0.0, 2.0]], jnp.float32)
    state = jax.jit(stepper.step)(stepper.init({"w": w}), POINTS)
    assert state.params["w"].dtype == jnp.float32
    c, s = np.cos(0.01), np.sin(0.01)
    np.testing.assert_allclose(state.params["w"], [[c, -s], [s, c]] @ np.asarray(w), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: o.teng(series, heat, 0.0), "teng: time_step=0"),
        (lambda: o.teng(series, heat, 0.1, "midpoint"), "integrator='midpoint'"),
        (lambda: o.teng(series, heat, 0.1, inner_iters=0), "inner_iters=0"),
        (
            lambda: o.teng_step(lambda p, x: p * x, jnp.ones(()), jnp.ones(3), jnp.ones(4)),
            r"target_u must have the shape \(4,\).*not \(3,\)",
        ),
        (
            lambda: o.teng(lambda p, x: p * x, lambda u, x: jnp.ones(2), 0.1).step(
                o.TengState(jnp.ones(()), 0.0, 0.0), jnp.ones(4)
            ),
            r"operator must give values like u_fn, of shape \(\) at a point, not \(2,\)",
        ),
    ],
)
def test_refusals(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()

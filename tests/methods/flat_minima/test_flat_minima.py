"""Flat minima: the rules written down in NumPy, their cost, and how they stand in each other."""

import re

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain.transforms import flow

pytestmark = pytest.mark.usefixtures("x64")

PARAMS = {"w": np.array([[1.0, -2.0], [0.5, 3.0]]), "b": np.array([0.3, -0.1])}


def loss(params):
    return sum(jnp.sum(jnp.cosh(leaf) + 0.1 * leaf**3) for leaf in jax.tree.leaves(params))


def gradient(x):
    return {n: np.sinh(leaf) + 0.3 * leaf**2 for n, leaf in x.items()}


def curvature(x):
    return {n: np.cosh(leaf) + 0.6 * leaf for n, leaf in x.items()}


def numpy_of(tree):
    return {n: np.asarray(leaf) for n, leaf in tree.items()}


def update_of(opt, params=PARAMS, **extra):
    extra = extra or {"value_fn": loss}
    grads = jax.grad(loss)(params)
    return opt.update(grads, opt.init(params), params, **extra)[0]


def norm(tree):
    return np.sqrt(sum(np.sum(leaf**2) for leaf in tree.values()))


def close(found, expected, rtol=1e-10):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), found, expected)


@pytest.mark.parametrize("given", [{"value_fn": loss}, {"grad_fn": jax.grad(loss)}])
@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_by_hand(adaptive, given):
    x, rho, eps = numpy_of(PARAMS), 0.3, 0.2
    g = gradient(x)
    scale = {n: np.abs(leaf) if adaptive else 1.0 for n, leaf in x.items()}
    length = norm({n: scale[n] * g[n] for n in x}) + eps
    at = {n: x[n] + rho * scale[n] ** 2 * g[n] / length for n in x}
    expected = {n: -0.1 * h - 0.1 * 0.5 * x[n] for n, h in gradient(at).items()}
    base = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    close(update_of(o.sam(base, rho, adaptive, eps), **given), expected)


@pytest.mark.parametrize("given", [{"value_fn": loss}, {"grad_fn": jax.grad(loss)}])
@pytest.mark.parametrize("mode", ["forward", "backward", "double"])
def test_gradient_regularization_by_hand(mode, given):
    x, gamma, h = numpy_of(PARAMS), 0.3, 0.07
    g = gradient(x)
    away = -h if mode == "backward" else h
    there = gradient({n: x[n] + away * g[n] for n in x})
    r = {n: (there[n] - g[n]) / away for n in x}
    if mode == "double":
        r = {n: curvature(x)[n] * g[n] for n in x}
    expected = {n: -0.1 * (g[n] + gamma * r[n]) for n in x}
    opt = o.gradient_regularization(optax.sgd(0.1), gamma, h, mode)
    close(update_of(opt, **given), expected)


def test_forward_regularization_with_gamma_the_step_is_sam_without_a_norm():
    opt = o.gradient_regularization(optax.sgd(1.0), 0.05, 0.05)
    x = numpy_of(PARAMS)
    at = {n: x[n] + 0.05 * g for n, g in gradient(x).items()}
    close(update_of(opt), {n: -h for n, h in gradient(at).items()}, rtol=1e-9)


def test_no_gradient_moves_nothing_and_is_no_nan():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    flat = lambda p: 0.0 * loss(p)  # noqa: E731
    for opt in (o.sam(optax.sgd(1.0)), o.sam(optax.sgd(1.0), adaptive=True)):
        found = opt.update(zeros, opt.init(PARAMS), PARAMS, value_fn=flat)[0]
        assert all(not np.any(leaf) for leaf in found.values())


# --- what stands inside --------------------------------------------------------------------------


def reading(name):
    """A transformation whose update is what it finds of an input, in every entry."""

    def value(g, params, value):
        return 0.0 * g + value

    def again(g, params, value_fn=None, grad_fn=None):
        return gradchain.transforms.closures.gradient_at(params, value_fn, grad_fn)

    return flow({"value": value, "gradient": again}[name])


WRAPPERS = {
    "sam": lambda inner: o.sam(inner, 0.2),
    "forward": lambda inner: o.gradient_regularization(inner, 0.3, 0.1),
    "double": lambda inner: o.gradient_regularization(inner, 0.3, mode="double"),
}


@pytest.mark.parametrize("given", [{"value_fn": loss}, {"grad_fn": jax.grad(loss)}])
@pytest.mark.parametrize("outer", WRAPPERS)
@pytest.mark.parametrize("inner", WRAPPERS)
def test_what_is_evaluated_inside_agrees_with_what_is_handed_in(outer, inner, given):
    """The gradient at the params, by the closures that stand inside, is the one that came in."""
    around = lambda t: WRAPPERS[outer](WRAPPERS[inner](t))  # noqa: E731
    close(
        update_of(around(reading("gradient")), **given),
        update_of(around(optax.identity()), **given),
    )


def test_the_value_inside_sam_is_the_loss_where_its_gradient_was_taken():
    x = numpy_of(PARAMS)
    g = gradient(x)
    at = {n: x[n] + 0.2 * g[n] / (norm(g) + 1e-12) for n in x}
    found = update_of(o.sam(reading("value"), 0.2))
    np.testing.assert_allclose(found["w"], float(loss(at)), rtol=1e-12)
    assert "value" not in gradchain.needs(o.sam(reading("value")))


def test_under_a_mask_the_others_stay_where_the_loss_is_taken():
    opt = gradchain.masked(o.sam(optax.sgd(1.0), 0.2), {"w": True, "b": False})
    x = numpy_of(PARAMS)
    g = gradient(x)
    found = update_of(opt)
    length = np.sqrt(np.sum(g["w"] ** 2)) + 1e-12
    expected = -gradient({"w": x["w"] + 0.2 * g["w"] / length})["w"]
    np.testing.assert_allclose(found["w"], expected, rtol=1e-10)


# --- cost ----------------------------------------------------------------------------------------


@jax.custom_vjp
def counted(x):
    """A loss whose gradient is sorted entries, for a compiler copies and merges no sorting."""
    return jnp.sum(x**2)


counted.defvjp(lambda x: (counted(x), x), lambda x, scale: (scale * jnp.sort(x),))


def gradients_in(opt):
    """How many gradients a compiled step takes beside the incoming one."""
    x = jnp.linspace(0.1, 1.0, 5)
    state = opt.init(x)

    def step(g, state, x):
        return opt.update(g, state, x, value_fn=counted, value=counted(x))

    text = jax.jit(step).lower(x, state, x).compile().as_text()
    return len(re.findall(r" sort\(", text))


@pytest.mark.parametrize(
    ("names", "gradients"),
    [
        ((), 0),
        (("sam",), 1),
        (("forward",), 1),
        (("sam", "forward"), 2),
        (("forward", "sam"), 2),
        (("sam", "sam", "forward"), 3),
    ],
)
def test_a_step_costs_the_gradients_that_the_rules_name(names, gradients):
    opt = o.sgd(0.1, momentum=0.9)
    for name in reversed(names):
        opt = WRAPPERS[name](opt)
    assert gradients_in(opt) == gradients


# --- flooding and the losses ---------------------------------------------------------------------


def test_flooding_turns_the_gradient_of_the_flooded_loss():
    for level in (1.0, 30.0):
        expected = jax.grad(lambda p, b=level: o.flood(loss(p), b))(PARAMS)
        close(update_of(o.flooding(level), value=loss(PARAMS)), expected)
    at = update_of(o.flooding(float(loss(PARAMS))), value=loss(PARAMS))
    assert all(not np.any(leaf) for leaf in at.values())


def test_the_trajectory_loss_and_its_gradient_by_hand():
    z, q = np.random.default_rng(0).normal(size=(2, 4, 3))
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
    p, past = softmax(z / 2), softmax(q / 2)
    divergence = np.sum(past * np.log(past / p), -1)
    value, g = jax.value_and_grad(o.trajectory_loss)(jnp.array(z), jnp.array(q), 0.7, 2.0)
    np.testing.assert_allclose(value, 0.7 * 4 * divergence.mean(), rtol=1e-12)
    np.testing.assert_allclose(g, 0.7 * 2 * (p - past) / 4, rtol=1e-10)
    none = jax.grad(o.trajectory_loss, argnums=1)(jnp.array(z), jnp.array(q))
    assert not np.any(none)


def test_the_trajectory_loss_of_logits_near_the_ends_of_the_format():
    slope = jax.jit(jax.value_and_grad(o.saf(1.0, 5.0)))
    z = np.float32([[1, -1, 0.3], [-2, 0.5, 0.5]])
    for size in np.float32([1e10, 1e18, 1e37]):
        value, gradient = slope(size * z, -size * z)
        np.testing.assert_allclose(value, 5 * size * (2 + 2.5) / 2, rtol=1e-6)
        np.testing.assert_allclose(gradient, np.array([[5, -5, 0], [-5, 2.5, 2.5]]) / 2, rtol=1e-6)


def test_logits_are_found_again_after_the_lag_and_not_overwritten_before():
    history = o.logit_history(6, 2, lag=3)
    assert history.init(jnp.bfloat16).dtype == jnp.bfloat16
    rows = jnp.array([4, 1])

    def epoch(state, e):
        state = history.record(state, rows, e, jnp.full((2, 2), 1.0 + e))
        return state, history.lookup(state, rows, e)

    state, found = jax.lax.scan(epoch, history.init(), jnp.arange(9))
    np.testing.assert_array_equal(found[3:, 0, 0], 1.0 + np.arange(6))
    assert not np.any(found[:3])
    assert not np.any(state[:, 0])


def test_the_averaged_weights_of_mesa_start_at_the_params():
    opt, x, v = o.params_ema(optax.sgd(0.5), 0.9), 2.0, 2.0
    params = jnp.array(2.0)
    state = opt.init(params)
    for _ in range(4):
        updates, state = opt.update(params, state, params)
        params = optax.apply_updates(params, updates)
        x = x - 0.5 * x
        v = 0.9 * v + 0.1 * x
        np.testing.assert_allclose(gradchain.eval_params(state, params), v, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: o.sam(optax.sgd(1.0), rho=-1.0), r"sam: rho=-1"),
        (lambda: o.gradient_regularization(optax.sgd(1.0), step=0.0), r"step=0"),
        (lambda: o.gradient_regularization(optax.sgd(1.0), mode="up"), r"mode='up'"),
        (lambda: o.saf(temperature=0.0), r"saf: temperature=0"),
        (lambda: o.mesa(coefficient=-1.0), r"mesa: coefficient=-1"),
        (lambda: o.logit_history(0, 2), r"logit_history: num_examples=0"),
        (lambda: o.trajectory_loss(jnp.ones((2, 3)), jnp.ones((2, 2))), "must have one shape"),
        (lambda: update_of(o.sam(optax.sgd(1.0)), value=1.0), "sam needs `value_fn`"),
        (lambda: update_of(o.flooding(0.1), value_fn=loss), "flooding needs `value`"),
    ],
)
def test_refusals(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_logits_of_another_shape_are_refused():
    history = o.logit_history(4, 2)
    with pytest.raises(ValueError, match=r"must have the shape \(1, 2\)"):
        history.record(history.init(), jnp.array([0]), 0, jnp.ones((1, 3)))

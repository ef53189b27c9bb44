"""Curvature that is not finite, or singular: never NaN in the params, and a tap says so."""

import jax
import jax.numpy as jnp
import pytest
from gradchain import observe, observed, optimizers

PARAMS = {
    "dense": {"kernel": jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.2]]), "bias": jnp.ones(2)}
}
A = jnp.sin(jnp.arange(12.0).reshape(4, 3) ** 2)
D = jnp.cos(jnp.arange(8.0).reshape(4, 2)) / 4


def outputs(p):
    return jnp.tanh(A @ p["dense"]["kernel"] + p["dense"]["bias"])


def loss(p):
    return jnp.sum(outputs(p) ** 2)


def nowhere(fn):
    """The same function, not a number anywhere."""
    return lambda p: fn(p) * (jnp.nan + jnp.sum(p["dense"]["bias"]))


GRADS = jax.grad(loss)(PARAMS)
GOOD = {
    "value": loss(PARAMS),
    "value_fn": loss,
    "logits_fn": outputs,
    "outputs_fn": outputs,
    "outputs_loss_fn": lambda out: jnp.mean(out**2),
    "layer_inputs": {"dense": A},
    "layer_cotangents": {"dense": D},
}
BAD = {
    **GOOD,
    "value_fn": nowhere(loss),
    "logits_fn": nowhere(outputs),
    "outputs_fn": nowhere(outputs),
    "layer_inputs": {"dense": A.at[0, 0].set(jnp.nan)},
    "layer_cotangents": {"dense": D.at[1].set(jnp.inf)},
}
HUGE = jax.tree.map(lambda g: 1e30 * g, GRADS)

NEWTON = [("psgd_kron", {}), ("psgd_lra", {}), ("psgd_xmat", {})]
OF_LAYERS = [
    ("k_fac", {"update_interval": 1}),
    ("k_fac", {"update_interval": 1, "eigen": True}),
    ("singd", {"update_interval": 1}),
    ("singd", {"update_interval": 1, "structures": ("diagonal", "triltoeplitz")}),
    ("mkor", {"update_interval": 1, "variant": "paper"}),
    ("mkor_h", {"update_interval": 1, "variant": "sherman_morrison"}),
]
CASES = [
    ("adahessian", {}, "curvature_is_finite"),
    ("sophia_h", {"update_interval": 1}, "curvature_is_finite"),
    ("sophia_g", {"update_interval": 1, "first_estimate": 1}, "curvature_is_finite"),
    ("oasis", {}, "curvature_is_finite"),
    ("oasis", {"adaptive": False}, "curvature_is_finite"),
    ("sania", {"preconditioner": "hessian"}, "curvature_is_finite"),
    ("egn", {"line_search": True, "adaptive_damping": True}, "curvature_is_finite"),
    ("lazy_newton", {"update_interval": 1}, "curvature_is_finite"),
    ("lazy_cubic_newton", {"update_interval": 1}, "curvature_is_finite"),
    ("stochastic_newton_filter", {}, "curvature_is_finite"),
    *((name, more, "failed_updates") for name, more in NEWTON),
    *((name, more, "statistics_are_finite") for name, more in OF_LAYERS),
]


def one_step(name, more, extras, grads=GRADS):
    """Updates of a step on `extras`, and what its taps say."""
    opt = observe(getattr(optimizers, name)(0.01, **more))
    arrays = {k: v for k, v in extras.items() if not callable(v)}
    closures = {k: v for k, v in extras.items() if callable(v)}

    @jax.jit
    def run(arrays):
        return opt.update(grads, opt.init(PARAMS), PARAMS, **arrays, **closures)

    updates, state = run(arrays)
    return updates, observed(state)


def is_finite(tree):
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return all(bool(jnp.all(jnp.isfinite(x))) for x in leaves)


def alarms(taps, name):
    """How many of the taps of that name say that something is wrong."""
    found = [value for path, value in taps.items() if path.split(".")[-1] == name]
    assert found, sorted(taps)
    return sum(int(x) if name == "failed_updates" else int(not x) for x in found)


@pytest.mark.parametrize(("name", "more", "tap"), CASES)
def test_curvature_that_is_not_finite_falls_back_and_says_so(name, more, tap):
    updates, taps = one_step(name, more, BAD)
    assert is_finite(updates)
    assert alarms(taps, tap)
    assert not alarms(one_step(name, more, GOOD)[1], tap)


@pytest.mark.parametrize(
    ("name", "more", "tap"),
    [
        ("lazy_cubic_newton", {}, "direction_is_finite"),
        ("mkor", {}, "fallbacks"),
    ],
)
def test_products_that_overflow_fall_back_and_say_so(name, more, tap):
    """In float32 the square of 1e30 is infinite."""
    updates, taps = one_step(name, more, GOOD, HUGE)
    assert is_finite(updates)
    # the cubic step's norms are scaled, so its direction is right; MKOR's products overflow
    assert bool(taps[next(k for k in taps if k.endswith(tap))])

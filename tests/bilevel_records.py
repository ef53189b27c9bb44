"""Recorded runs of bilevel methods, on quadratic problems."""

from typing import Any

import jax
import jax.numpy as jnp
from gradchain import optimizers

FIELDS = ("x", "y", "z")


def losses(constants: Any) -> tuple[Any, Any]:
    """(upper, lower) of the recorded problem."""
    h, b, c, q, r, rr, s = (
        jnp.asarray(constants[f"problem/{name}"]) for name in ("H", "B", "c", "Q", "r", "R", "s")
    )

    def upper(x: Any, y: Any) -> Any:
        return (y - r) @ q @ (y - r) / 2 + (x - s) @ rr @ (x - s) / 2

    return upper, lambda x, y: y @ h @ y / 2 - y @ (b @ x + c)


def replayed(record: Any, factory: Any) -> dict[str, Any]:
    """What the stepper has after each step."""
    stepper = (factory or getattr(optimizers, record.api))(**record.kwargs)
    upper, lower = losses(record.constants)
    x, y = (jnp.asarray(record.series["params"][name][0]) for name in "xy")
    both = (upper, lower) if record.api == "bo_rep" else ()

    def step(state: Any, _: Any) -> Any:
        state = stepper.step(state, upper, lower)
        found = {"params": {name: getattr(state, name) for name in FIELDS}}
        if "multiplier" in record.series:
            found["multiplier"] = state.multiplier
        return state, found

    @jax.jit
    def run() -> Any:
        return jax.lax.scan(step, stepper.init(x, y, *both), length=record.steps)[1]

    return run()


def expected(record: Any) -> dict[str, Any]:
    """The recorded values after each step; a group may start before the first."""
    groups = ("params", "multiplier")
    return {
        name: jax.tree.map(lambda x: x[len(x) - record.steps :], record.series[name])
        for name in groups
        if name in record.series
    }


def hypergradient(record: Any, factory: Any) -> dict[str, Any]:
    """The implicit hyper-gradient of a ridge regression with a penalty for each weight."""
    x, y, x_val, y_val = (
        jnp.asarray(record.constants[f"problem/{name}"])
        for name in ("x_train", "y_train", "x_val", "y_val")
    )
    w, log_l2 = record.series["params"]["w"][0], record.series["hyper"]["log_l2"][0]

    def train(w: Any, l2: Any) -> Any:
        return jnp.mean((x @ w - y) ** 2) + jnp.sum(jnp.exp(l2) * w**2)

    def val(w: Any, l2: Any) -> Any:
        return jnp.mean((x_val @ w - y_val) ** 2)

    factory = factory or optimizers.implicit_hypergradient
    series = optimizers.neumann_series(record.kwargs["step"], record.kwargs["terms"])
    product = lambda v: jax.jvp(jax.grad(lambda w: train(w, log_l2)), (w,), (v,))[1]  # noqa: E731
    return {
        "hypergradient": factory(train, val, w, log_l2, **record.kwargs),
        "inverse_hvp": series(product, jax.grad(val)(w, log_l2)),
    }

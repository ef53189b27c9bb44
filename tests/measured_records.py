"""Recorded numbers about runs: scores, forecasts, rates. Arguments and results, no training."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from gradchain import optimizers
from gradchain.optimizers.controllers.exponential_forecast import fitted


def score(record: Any, factory: Callable[..., Any] | None) -> dict[str, Any]:
    """Runtimes (-1: never), profiles and scores of a table of evaluations."""
    given = dict(record.kwargs)
    times, metric, target = (
        record.constants[f"problem/{n}"] for n in ("times", "metric", "target")
    )
    score_of = factory or optimizers.algoperf_score
    grid = {name: given[name] for name in ("max_tau", "num_points")}
    runtimes = optimizers.time_to_target(times, metric, target, selection=given["selection"])
    profile = optimizers.performance_profile(runtimes, **grid)
    return {
        "time_to_target": jnp.where(jnp.isfinite(runtimes), runtimes, -1.0),
        "profile": profile.rho,
        "tau": profile.tau,
        "score": score_of(times, metric, target, **given),
    }


def forecast(record: Any, factory: Callable[..., Any] | None) -> dict[str, Any]:
    """The forecast of a series, and the curve behind it."""
    losses, given = record.constants["problem/losses"], dict(record.kwargs)
    curve = fitted(losses, given["training_loss"])
    at_horizon = (factory or optimizers.exponential_forecast)(losses, **given)
    return {"forecast": jnp.asarray(at_horizon), **curve._asdict()}


def spectrum(record: Any, factory: Callable[..., Any] | None) -> dict[str, Any]:
    """Rate and momentum for a diagonal quadratic, from as many products as it has entries."""
    curvature = jnp.asarray(record.constants["problem/eigenvalues"])
    estimate = (factory or optimizers.lanczos_lr_momentum)(**record.kwargs)
    found = estimate(jnp.ones_like(curvature), lambda x: jnp.sum(curvature * x**2) / 2)
    ends = {"max_eigenvalue": found.ritz_values[-1], "min_eigenvalue": found.ritz_values[0]}
    return {"learning_rate": found.learning_rate, "momentum": found.momentum, **ends}


KINDS = {"scoring": score, "forecast": forecast, "law": spectrum}


def expected(record: Any) -> dict[str, Any]:
    """The recorded results, by name."""
    prefix = "values/"
    found = {name: value for name, value in record.constants.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}

"""Recorded numbers about runs: scores, forecasts, rates. Arguments and results, no training."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from gradchain import optimizers


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


KINDS = {"scoring": score}


def expected(record: Any) -> dict[str, Any]:
    """The recorded results, by name."""
    prefix = "values/"
    found = {name: value for name, value in record.constants.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}

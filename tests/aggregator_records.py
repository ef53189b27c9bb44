"""Replays recorded aggregators: stacked gradients in, one gradient out, plain descent along it."""

from collections.abc import Mapping
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax

DRAWN = {"order": "order", "u": "uniforms", "normals": "normals"}
"""Recorded kind of draws -> the extra argument that takes them."""


def expected(record: Any) -> dict[str, Any]:
    """What leaves the aggregator at each step, and the params after it where there are any."""
    groups = {"aggregated": record.series["aggregated"]}
    if "params" in record.series:
        groups["params"] = jax.tree.map(lambda x: x[1:], record.series["params"])
    return groups


def draws(record: Any) -> Mapping[str, Any]:
    """The recorded draws by the argument that takes them; `u/<leaf>` are those of a leaf."""
    found: dict[str, Any] = {}
    for name, values in record.series.get("draws", {}).items():
        kind, _, leaf = name.partition("/")
        if leaf:
            found.setdefault(DRAWN[kind], {})[leaf] = values
        else:
            found[DRAWN[kind]] = values
    return found


def replayed(record: Any, factory: Any) -> dict[str, Any]:
    """What our aggregator gives, and plain descent along it at the recorded rate."""
    factory = getattr(gradchain.optimizers, record.api) if factory is None else factory
    arguments = dict(record.kwargs)
    rate = arguments.pop("learning_rate", 0.0)
    starts = record.series.get("draws/init")
    if starts is not None:
        drawn = jnp.asarray(starts)
        arguments["init"] = lambda key, count, params: drawn[count]
    made = factory(**arguments)
    aggregate = optax.with_extra_args_support(
        made if hasattr(made, "update") else gradchain.optimizers.aggregate(made)
    )
    stacked = jax.tree.map(jnp.asarray, record.series["stacked"])
    like = jax.tree.map(lambda x: jnp.zeros(np.shape(x)[2:]), record.series["stacked"])
    start = jax.tree.map(lambda x: jnp.asarray(x[0]), record.series.get("params")) or like

    def step(carry: Any, now: Any) -> Any:
        params, state = carry
        gradients, extra = now
        one, state = aggregate.update(gradients, state, params, **extra)
        params = jax.tree.map(lambda x, u: x - rate * u, params, one)
        return (params, state), {"aggregated": one, "params": params}

    def run(params: Any) -> Any:
        fed = (stacked, jax.tree.map(jnp.asarray, draws(record)))
        return jax.lax.scan(step, (params, aggregate.init(params)), fed)[1]

    return jax.jit(run)(start)

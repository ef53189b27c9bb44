"""Replays recorded runs of several workers, on a mesh and stacked on one device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from workers import AXIS, WORLDS

APART = {"mo_nna", "cd_prox_sgt"}
"""Methods whose workers have params of their own."""


def by_worker(tree: Mapping[str, Any]) -> Any:
    """Leaves `<worker>/<leaf>` with the steps in front as leaves with workers, then steps."""
    found: dict[str, dict[int, Any]] = {}
    for name, values in tree.items():
        worker, _, leaf = name.partition("/")
        if leaf:
            found.setdefault(leaf, {})[int(worker)] = values
    return {leaf: np.stack([own[i] for i in sorted(own)]) for leaf, own in found.items()}


def start_of(record: Any) -> Any:
    """The params before the first step, which all workers share."""
    params = record.series["params"]
    return {leaf: jnp.asarray(x[0]) for leaf, x in params.items() if "/" not in leaf}


def expected(record: Any) -> dict[str, Any]:
    """The params after each step, in either world."""
    if record.api in APART:
        params = by_worker(record.series["params"])
        moved = jax.tree.map(lambda x: np.moveaxis(x, 0, 1), params)
    else:
        moved = jax.tree.map(lambda x: x[1:], record.series["params"])
    return {f"params, {world}": moved for world in WORLDS}


def arguments_of(record: Any) -> dict[str, Any]:
    """The recorded arguments, and those that arrays stand for."""
    arguments = {name: value for name, value in record.kwargs.items() if value is not None}
    factors = {side: record.constants.get(f"draws/{side}") for side in "pq"}
    given = {side: tree for side, tree in factors.items() if tree is not None}
    if given:
        leaves = start_of(record)
        arguments["init_factors"] = {
            side: {leaf: tree.get(leaf) for leaf in leaves} for side, tree in given.items()
        }
    return arguments


def replayed(record: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    """What our workers' params are after each step, each with its own recorded gradients."""
    own = jax.tree.map(jnp.asarray, by_worker(record.series["grads"]))
    opt = optax.with_extra_args_support(factory(**arguments_of(record), axis_name=AXIS))

    def train(grads: Any, start: Any) -> Any:
        def step(carry: Any, g: Any) -> Any:
            params, state = carry
            updates, state = opt.update(g, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (start, opt.init(start)), grads)[1]

    runs = {}
    for name, world in WORLDS.items():
        runs[f"params, {name}"] = world(train, own, start_of(record))
    return runs

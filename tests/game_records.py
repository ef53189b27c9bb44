"""Recorded games: their vector fields, and the sets that their records name."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from gradchain.transforms import projections

BOUNDS = {"box": ("lower", "upper"), "ball": ("radius",), "simplex": ()}
"""Set -> the recorded arguments that are its own, in its order."""


def with_sets(record: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The recorded arguments, with the set in place of its name."""
    arguments = dict(arguments)
    name = arguments.pop("projection", None)
    for own in {argument for names in BOUNDS.values() for argument in names} & set(arguments):
        if own not in BOUNDS.get(name, ()):
            raise ValueError(f"{record.name}: {own} without its set")
    if name is None:
        return arguments
    bounds = [arguments.pop(argument) for argument in BOUNDS[name]]
    return {**arguments, "projection": getattr(projections, name)(*bounds)}


def field(record: Any, _: Mapping[str, Any]) -> dict[str, Callable[[Any], Any]]:
    """V(x, y) = (A y + bx + mu x, -A^T x + by + mu y), each player's own gradient."""
    A, bx, by, mu = (jnp.asarray(record.constants[f"problem/{n}"]) for n in ("A", "bx", "by", "mu"))

    def grad_fn(params: Any) -> Any:
        x, y = params["x"], params["y"]
        return {"x": A @ y + bx + mu * x, "y": -A.T @ x + by + mu * y}

    return {"grad_fn": grad_fn}

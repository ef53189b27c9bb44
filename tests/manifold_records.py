"""Recorded runs on manifolds: the objects that their descriptions mean, and the bare operations."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from gradchain.transforms import manifolds

METHODS = ("rsgd", "riemannian_adagrad", "riemannian_adam", "riemannian_amsgrad")


def described(descriptions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Leaf -> its manifold, from the name and the arguments in the record."""
    found = {}
    for leaf, description in descriptions.items():
        arguments = dict(description)
        found[leaf] = getattr(manifolds, arguments.pop("name"))(**arguments)
    return found


def with_manifolds(record: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The recorded arguments, with the objects in place of their descriptions."""
    return {**arguments, "manifolds": described(arguments["manifolds"])}


def replayed(record: Any, factory: Any) -> dict[str, Any]:
    """Every operation on the recorded points and tangent vectors."""
    places = described(record.kwargs["manifolds"])
    found: dict[str, Any] = {}
    for leaf, manifold in places.items():
        given = (record.constants[f"{group}/{leaf}"] for group in ("point", "egrad", "tangent"))
        x, g, u = map(jnp.asarray, given)
        r = manifold.egrad2rgrad(x, g)
        y = manifold.retract(x, u)
        operations = {
            "out/rgrad": r,
            "out/inner": manifold.inner(x, r),
            "out/retraction": y,
            "out/transport": manifold.transport(x, u, y, r),
        }
        for group, value in operations.items():
            found.setdefault(group, {})[leaf] = value
    return jax.tree.map(lambda x: x[None], found)


def expected(record: Any) -> dict[str, Any]:
    """The recorded results, as a series of one step."""
    groups = {k: v for k, v in record.constants.items() if k.startswith("out/")}
    return jax.tree.map(lambda x: x[None], groups)

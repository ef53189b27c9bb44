"""The entries of `layer_inputs` and `layer_cotangents` that belong to a layer."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.errors import FlowError
from ..notation.hyperparameters import DType
from ..notation.paths import Name, joined, plain_path
from ..notation.shapes import UNKNOWN
from ..notation.values import Leaves, is_missing
from .layer_places import ABSENT, KERNEL, Place, child_of


def is_number(node: object) -> bool:
    """Whether it is one number, a Python or an array one."""
    return isinstance(node, int | float) or getattr(node, "ndim", None) == 0


def has_data(data: object, place: Place) -> bool:
    """Whether a layer has an entry that is not None."""
    return data is None or data is UNKNOWN or lookup(data, place.name, "layer_inputs") is not None


def found_for(data: object, place: Place) -> jax.Array:
    """The entry of a layer that has to have one."""
    found: jax.Array | None = lookup(data, place.name, "layer_cotangents")
    if found is None:
        raise FlowError(f"layer {joined(place.name)} has layer_inputs but no layer_cotangents")
    return found


def lookup(data: object, name: tuple[Name, ...], what: str) -> Any:
    """The entry of a layer: an array at the layer itself, or at its kernel; None if it says so."""
    node: Any = data
    for part in name:
        if node is None or is_missing(node):
            return None
        if is_number(node):  # one for all layers below
            return node
        node = child_of(node, part, ABSENT)
        if node is ABSENT:
            raise FlowError(
                f"{what} has no entry for the layer {joined(name)}; give None for a layer "
                "that is to follow the plain gradient, or leave it out with layers={name: None}"
            )
    if isinstance(node, Mapping):
        node = node.get(KERNEL)
    if is_missing(node):
        return None
    return getattr(node, "value", node) if not hasattr(node, "dtype") else node


def refuse_unknown(data: optax.Params, tree: Leaves, what: str) -> None:
    """Raises where an entry belongs to no params."""
    whole = tree.tree()
    for path, _ in jax.tree_util.tree_flatten_with_path(data)[0]:
        node: Any = whole
        for part in plain_path(path):
            if is_missing(node):
                break
            node = child_of(node, part, ABSENT)
            if node is ABSENT:
                name = joined(plain_path(path))
                raise FlowError(f"{what} has an entry for {name}, of which there are no params")


def checked_rows(
    place: Place, inputs: jax.Array, cotangents: jax.Array, dtype: DType
) -> tuple[jax.Array, jax.Array]:
    """The pair as arrays of a dtype, whose shapes suit the layer and each other."""
    inputs, cotangents = (jnp.asarray(x).astype(dtype) for x in (inputs, cotangents))
    name, stack = joined(place.name), len(place.stack)
    kind = f"its kernel has shape {place.shape}, read as {place.layer}"
    wanted = {
        "layer_inputs": (inputs, place.fan_in),
        "layer_cotangents": (cotangents, place.fan_out),
    }
    for what, (array, width) in wanted.items():
        fits = array.ndim >= stack + 2 and array.shape[-1] == width
        if not fits or array.shape[:stack] != place.stack:
            raise FlowError(
                f"{what} of layer {name} has shape {array.shape}; it must be "
                f"({', '.join(map(str, (*place.stack, '...', width)))}): {kind}"
            )
    if inputs.shape[:-1] != cotangents.shape[:-1]:
        raise FlowError(
            f"layer {name}: layer_inputs {inputs.shape} and layer_cotangents {cotangents.shape} "
            "differ in their leading axes"
        )
    return inputs, cotangents

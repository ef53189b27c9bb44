"""What enters a step and what leaves it, checked."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import PyTreeDef

from .context import Context
from .errors import FlowError
from .plain import own_array, own_arrays
from .roots import saturated
from .sharding import resharded
from .signal import Input
from .values import Leaves, is_missing, working

LAYER_DATA = ("layer_inputs", "layer_cotangents")
"""Inputs with one entry per layer, not per leaf: they reach the step as they are."""

NOT_LIKE_PARAMS = (*LAYER_DATA, "slopes")
"""Inputs that are no trees like the gradient, also where that is a single array."""


def input_value(node: Input, incoming: Leaves, context: Context) -> Any:
    """What an input of the step carries at this step.

    Args:
      node: the input.
      incoming: the gradient.
      context: what is known at this step.
    """
    if node.name == "updates":
        return incoming.once(working)
    if node.name == "params":
        return context.params
    return _as_signal(context.extra.get(node.name), node.name, context)


def _as_signal(value: Any, name: str, context: Context) -> Any:
    """An extra input as a signal carries it: a tree like the gradient becomes leaves."""
    if value is None or callable(value):
        return value
    if name in NOT_LIKE_PARAMS:
        return own_arrays(value)
    if name == "value":
        if jnp.ndim(value):
            raise ValueError(f"`value` must be a scalar loss, it has shape {jnp.shape(value)}")
        return jnp.asarray(value, context.scalar_dtype)
    try:
        return _up_to(context.treedef, value).map(own_array).map(_working_floats)
    except (ValueError, TypeError, KeyError):
        return own_arrays(value)


def _up_to(treedef: PyTreeDef, value: optax.Params) -> Leaves:
    """Flattened like the gradient, also where that has masked nodes and the value all leaves."""
    try:
        return Leaves.up_to(treedef, value)
    except (ValueError, TypeError, KeyError):
        numbered = treedef.unflatten(range(treedef.num_leaves))
        whole: PyTreeDef
        places, whole = jax.tree.flatten(numbered, is_leaf=is_missing)
        pairs = zip(places, whole.flatten_up_to(value), strict=True)
        return Leaves((x for place, x in pairs if not is_missing(place)), treedef)


def _working_floats(leaf: object) -> object:
    is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return working(leaf) if is_float else leaf


def outgoing(
    value: Leaves, incoming: Leaves, given: Leaves | None, label: str, is_finite: bool = False
) -> optax.Updates:
    """The tree of updates, checked to fit the params and in their dtypes.

    Args:
      value: of the output.
      incoming: the gradient.
      given: the params, if they were.
      label: the method's name.
      is_finite: whether the output is known to be never infinite.
    """
    check_outgoing(value, incoming, given, label)
    bounded = value if is_finite else value.once(saturated)
    return bounded.map(_fitted, given or incoming).tree()


def check_outgoing(value: object, incoming: Leaves, given: Leaves | None, label: str) -> None:
    """Raises FlowError for what is no update of the params; abstract values will do."""
    like = given or incoming
    if not isinstance(value, Leaves) or value.treedef != incoming.treedef:
        kind = "leaves of another structure" if isinstance(value, Leaves) else "a scalar"
        raise FlowError(
            f"{label}: the step returns {kind} instead of a tree like the gradient; "
            "what was projected, stacked or split must be brought back before it is returned"
        )
    for index, (leaf, param) in enumerate(zip(value.values, like.values, strict=True)):
        if is_missing(leaf):
            raise FlowError(
                f"{label}: the step returns nothing for leaf {incoming.path(index)}; "
                "merge() the parts of a split"
            )
        unstacked = given is None and _shape_of(leaf) == _shape_of(param)[1:]
        if _shape_of(leaf) != _shape_of(param) and not unstacked:
            raise FlowError(
                f"{label}: the update of leaf {incoming.path(index)} has shape "
                f"{_shape_of(leaf)}, the parameter {_shape_of(param)}"
            )


def _shape_of(leaf: Any) -> Any:
    return leaf.shape if hasattr(leaf, "shape") else jax.tree.map(jnp.shape, leaf)


def _fitted(leaf: jax.Array, param: jax.Array) -> jax.Array:
    if leaf.dtype != param.dtype:
        leaf = saturated(leaf, param.dtype).astype(param.dtype)
    return resharded(leaf, param) if leaf.shape == param.shape else leaf


def matching(incoming: Leaves, params: optax.Params, label: str) -> Leaves:
    """The params flattened like the updates; FlowError where the trees differ.

    Updates may have one more axis in front: gradients of several losses, stacked.
    """
    try:
        leaves = Leaves.up_to(incoming.treedef, params)
    except (ValueError, TypeError, KeyError) as error:
        raise FlowError(f"{label}: params and updates are different trees: {error}") from error
    for index, (update, param) in enumerate(zip(incoming.values, leaves.values, strict=True)):
        if jnp.shape(param) not in (jnp.shape(update), jnp.shape(update)[1:]):
            raise FlowError(
                f"{label}: updates and params differ at leaf {incoming.path(index)}: "
                f"shapes {jnp.shape(update)} and {jnp.shape(param)}"
            )
    return checked(leaves, "params", label)


def checked(leaves: Leaves, what: str, label: str) -> Leaves:
    """The leaves as arrays; FlowError for one that is not of a floating or complex dtype."""
    return Leaves(
        (_checked_leaf(leaf, i, leaves, what, label) for i, leaf in enumerate(leaves.values)),
        leaves.treedef,
    )


def _checked_leaf(leaf: object, index: int, leaves: Leaves, what: str, label: str) -> object:
    array = jnp.asarray(leaf) if isinstance(leaf, float | complex) else own_array(leaf)
    dtype = getattr(array, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise FlowError(
            f"{label}: {what} must be floating or complex arrays; leaf {leaves.path(index)} is "
            f"{dtype or type(leaf).__name__}. Keep other leaves out with "
            "optax.masked, or with eqx.filter(model, eqx.is_inexact_array)"
        )
    return array

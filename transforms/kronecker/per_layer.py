"""Hyper-parameters that differ between layers, given by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ..notation.checks import checked
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Hyperparameter, NonNegative, Tree
from ..notation.paths import leaf_names, plain_path
from ..notation.signal import Signal
from ..notation.values import MISSING, Leaves, is_missing, scalar_dtype
from .layer_data import is_number, lookup
from .layer_places import child_of, owner_of

PerLayer: TypeAlias = NonNegative | Mapping[str, "PerLayer"] | Sequence["PerLayer"]
"""A hyper-parameter, or a tree of numbers with one at every layer."""


@checked()
def per_layer(value: PerLayer, like: Signal) -> Hyperparameter:
    """A hyper-parameter that may differ between layers, as a signal; numbers stay numbers.

    A function of signals.

    Args:
      value: a number, or a tree with one at every layer, as `layer_inputs` has arrays.
      like: a layer signal.
    """
    if not isinstance(value, Mapping | Sequence):
        return value

    def looked_up(tree: Leaves) -> Leaves:
        names = leaf_names(tree.treedef)
        values: list[Any] = [MISSING] * len(tree)
        for i, name in enumerate(names):
            if not is_missing(tree.held[i]):
                found = lookup(value, owner_of(name), "the per-layer values")
                values[i] = jnp.asarray(found, scalar_dtype([tree.abstract(i)]))
        return Leaves(values, tree.treedef)

    return lift_tree(looked_up, "per_layer")(like)


@checked()
def spread(values: Tree, default: float) -> Callable[[optax.Params], optax.Params]:
    """A number for every leaf of a tree, from a tree of numbers that may be cut off above them.

    A function of trees of numbers.

    Args:
      values: one above several leaves is that of all of them.
      default: the number of leaves without one.

    Returns:
      A function from a tree to the tree of its numbers; see `leaf_multipliers`.
    """

    def number(path: Sequence[Any], _: jax.Array) -> Any:
        node: Any = values
        for part in plain_path(path):
            node = node if is_number(node) else child_of(node, part, None)
        return node if is_number(node) else default

    return lambda tree: jax.tree_util.tree_map_with_path(number, tree)

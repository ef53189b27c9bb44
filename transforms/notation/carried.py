"""Leaves of the params that are no arrays, or have no gradient: they are carried along."""

from typing import Any

import jax
import optax
from jax.tree_util import PyTreeDef


def only_arrays(params: optax.Params) -> optax.Params:
    """The params without leaves that are no arrays, such as the functions of an Equinox module.

    They have no gradient (None), and their place in a state is None.
    """
    return jax.tree.map(lambda leaf: leaf if _may_be_array(leaf) else None, params)


def _may_be_array(leaf: object) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, float | complex)


class Template:
    """Params in which some leaves have no gradient: what stands there is carried along.

    Attributes:
      params: the whole tree, as it was given.
      arrays: the same with None in place of what has no gradient.
    """

    def __init__(self, updates: optax.Updates, params: optax.Params) -> None:
        self.structure: PyTreeDef
        values, self.structure = jax.tree.flatten(updates, is_leaf=_is_none)
        self.entries = self.structure.flatten_up_to(params)
        self.present = [value is not None for value in values]
        pairs = zip(self.entries, self.present, strict=True)
        self.arrays = self.structure.unflatten([x if there else None for x, there in pairs])

    def completed(self, tree: optax.Params) -> optax.Params:
        """A tree like `arrays`, with what was carried along in its place; others as they are."""
        structure: PyTreeDef = jax.tree.structure(tree)
        if structure != jax.tree.structure(self.arrays):
            return tree
        values = iter(jax.tree.leaves(tree))
        pairs = zip(self.entries, self.present, strict=True)
        return self.structure.unflatten([next(values) if there else x for x, there in pairs])

    def closure(self, value: Any) -> Any:
        """A closure of the params as one of `arrays`; anything else as it is."""
        if not callable(value):
            return value
        return lambda tree, *args, **kwargs: value(self.completed(tree), *args, **kwargs)


def _is_none(node: object) -> bool:
    return node is None


def template_of(updates: optax.Updates, params: optax.Params) -> Template | None:
    """What is to be carried along, where leaves of the params have None for a gradient."""
    if all(leaf is not None for leaf in jax.tree.leaves(updates, is_leaf=_is_none)):
        return None
    try:
        template = Template(updates, params)
    except (ValueError, TypeError, KeyError):
        return None
    pairs = zip(template.entries, template.present, strict=True)
    return template if any(x is not None and not there for x, there in pairs) else None

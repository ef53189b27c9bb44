"""Params in boxes that say how their axes are sharded, as Flax's `with_partitioning` makes them.

A state of a param has the box of the param, with the part of the annotation that its shape has:
axes that it shares with the param, in order, keep their names, others have none. What is no single
array has no box. Reading, the boxes are taken off.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

import jax
import optax
from jax.sharding import PartitionSpec
from jax.tree_util import PyTreeDef

from .values import Leaves, is_missing

METADATA = ("out_sharding", "sharding_names", "sharding")
"""What the names of the axes are called in the metadata of an NNX variable."""

AxisNames: TypeAlias = str | tuple[str, ...] | None
"""What one axis is sharded over."""


def is_box(node: object) -> bool:
    """Whether it is a node of Flax around one array that has annotations."""
    return hasattr(node, "replace_boxed") or _names_of_variable(node) is not None


def _names_of_variable(node: Any) -> Any:
    if not hasattr(node, "set_metadata"):
        return None
    metadata = node.get_metadata()
    return next((metadata[name] for name in METADATA if metadata.get(name) is not None), None)


@cache
def has_boxes(treedef: PyTreeDef) -> bool:
    """Whether the leaves of a tree of this structure are in boxes."""
    numbered = treedef.unflatten(range(treedef.num_leaves))
    return any(map(is_box, jax.tree.leaves(numbered, is_leaf=is_box)))


def boxed(leaves: Leaves, params: Leaves | None) -> optax.Params:
    """The tree of a state's leaves, each in the box of its param as far as that fits.

    Args:
      leaves: what is stored.
      params: the params, where the tree is theirs; their shapes tell the axes.
    """
    if params is None or params.treedef != leaves.treedef or not has_boxes(leaves.treedef):
        return leaves.tree()
    numbered = leaves.treedef.unflatten(range(len(leaves)))

    def fitted(node: Any) -> Any:
        if not is_box(node):
            return leaves.values[node]
        (index,) = jax.tree.leaves(node)
        return _in_box(node, leaves.values[index], params.values[index])

    return jax.tree.map(fitted, numbered, is_leaf=is_box)


def _in_box(box: Any, value: Any, param: Any) -> Any:
    if is_missing(value) or not hasattr(value, "shape"):
        return value
    filled = jax.tree.map(lambda _: value, box)
    shape = getattr(param, "shape", value.shape)
    if value.shape == shape:
        return filled
    axes = shared_axes(shape, value.shape)
    if hasattr(box, "names"):
        return filled.replace(names=_of_axes(box.names, axes))
    names = _names_of_variable(box)
    name = next(name for name in METADATA if box.get_metadata().get(name) is not None)
    filled.set_metadata(
        **{name: type(names)(*_of_axes(names, axes)) if _is_spec(names) else _of_axes(names, axes)}
    )
    return filled


def _is_spec(names: object) -> bool:
    return isinstance(names, PartitionSpec)


def _of_axes(names: Sequence[AxisNames], axes: Sequence[int | None]) -> tuple[AxisNames, ...]:
    known = tuple(names)
    return tuple(known[a] if a is not None and a < len(known) else None for a in axes)


def shared_axes(whole: Sequence[int], part: Sequence[int]) -> tuple[int | None, ...]:
    """For each axis of a shape the axis of another that it is; None where that is not certain.

    Only what is left of the other after dropping axes, in order and in one way, is certain.
    """
    found = list(_embeddings(tuple(whole), tuple(part)))
    return found[0] if len(found) == 1 else (None,) * len(part)


def _embeddings(
    whole: tuple[int, ...], part: tuple[int, ...], first: int = 0
) -> Iterator[tuple[int, ...]]:
    if not part:
        yield ()
        return
    for axis in range(first, len(whole)):
        if whole[axis] == part[0]:
            for rest in _embeddings(whole, part[1:], axis + 1):
                yield (axis, *rest)


def unboxed(treedef: PyTreeDef, tree: optax.Params) -> Leaves:
    """A stored tree, flattened by the structure of the params, whatever boxes it has."""
    try:
        return Leaves.up_to(treedef, tree)
    except (ValueError, TypeError, KeyError):
        if not has_boxes(treedef):
            raise
    numbered = treedef.unflatten(range(treedef.num_leaves))
    structure: PyTreeDef = jax.tree.structure(_bare(numbered))
    values = structure.flatten_up_to(_bare(tree))
    return Leaves(values, treedef)


def _bare(tree: optax.Params) -> optax.Params:
    """The tree with what is in its boxes in their places."""

    def opened(node: object) -> object:
        return jax.tree.leaves(node)[0] if is_box(node) else node

    return jax.tree.map(opened, tree, is_leaf=is_box)

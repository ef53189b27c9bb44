"""Arrays inside `jax.shard_map` that differ from device to device, and say so in their types.

There an array varies along mesh axes, or is the same on all devices. A branch or a loop must give
the types that the other branch gives or that it was entered with, and constants do not vary: what
belongs to a member of an ensemble starts varying as its params do.
"""

from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")


def inside_shard_map() -> bool:
    """Whether arrays can differ from device to device at all."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def axes_of(leaf: bool | jax.Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    """The mesh axes along which an array, or abstract value, varies."""
    kind = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    manual = getattr(kind, "manual_axis_type", None)
    varies: frozenset[str] = frozenset() if manual is None else manual.varying
    return varies


def all_axes_of(tree: object) -> frozenset[str]:
    """The axes along which anything in a tree varies."""
    arrays = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))
    return frozenset().union(*map(axes_of, arrays)) if inside_shard_map() else frozenset()


def varying(leaf: jax.Array, axes: frozenset[str]) -> jax.Array:
    """The array as one that varies along these axes, too."""
    missing = tuple(sorted(axes - axes_of(leaf)))
    return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf


def all_varying(tree: Tree, axes: frozenset[str]) -> Tree:
    """Every array of a tree as one that varies along these axes."""
    return jax.tree.map(lambda leaf: varying(leaf, axes), tree) if axes else tree


def alike(tree: Tree, like: object) -> Tree:
    """A tree whose arrays vary wherever those of another of its structure do."""
    if not inside_shard_map():
        return tree
    return jax.tree.map(lambda leaf, other: varying(leaf, axes_of(other)), tree, like)


def union_of(*outputs: object) -> Any:
    """For every place in trees of one structure the axes along which any of them varies."""
    return jax.tree.map(lambda *leaves: frozenset().union(*map(axes_of, leaves)), *outputs)

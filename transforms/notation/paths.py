"""The names of leaves in a tree, the same whichever containers hold it."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeAlias

import jax

Name: TypeAlias = Hashable
"""What a key of a path says: a name, a key of a mapping or an index."""


def leaf_names(treedef: jax.tree_util.PyTreeDef) -> list[tuple[Name, ...]]:
    """The path of every leaf as plain names; the `.value` of a Flax variable is no part of it."""
    numbered = treedef.unflatten(range(treedef.num_leaves))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(numbered)[0]]
    return [plain_path(path) for path in paths]


def plain_path(path: Sequence[object]) -> tuple[Name, ...]:
    """The names along a path of `jax.tree_util` keys."""
    if path and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return tuple(map(name_of, path))


def name_of(key: object) -> Name:
    """What a key of a path says: a name, a key of a mapping or an index."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            name: Name = getattr(key, attribute)
            return name
    return str(key)


def joined(path: Iterable[Name]) -> str:
    """A path of names as one name: "block/dense"."""
    return "/".join(map(str, path)) or "(the only leaf)"


def named_leaves(tree: object) -> dict[tuple[str, ...], Any]:
    """The leaves of a tree by their names."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(map(str, plain_path(path))): leaf for path, leaf in found}

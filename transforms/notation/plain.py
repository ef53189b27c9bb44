"""States as plain values: arrays of their own in tuples, mappings and named tuples, nothing else.

Within a flow a leaf may be any pytree, and a flag is a boolean. What is stored of them is what
every serialiser takes, and what stays what it is where wrappers blend two states by arithmetic.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .layout import make_state
from .paths import name_of
from .values import Leaves, Part, Together, is_missing, seen_anew

Tree = TypeVar("Tree")


def plain(leaf: Any) -> Any:
    """A leaf as it is stored: other nodes as named tuples of their parts, booleans as int32.

    `optax.contrib.sam` multiplies states by 0 or 1 and adds them, which makes booleans integers.
    """
    if hasattr(leaf, "dtype"):
        return leaf.astype(jnp.int32) if leaf.dtype == jnp.bool_ else leaf
    if leaf is None or is_missing(leaf):
        return leaf
    if isinstance(leaf, dict):
        return {name: plain(part) for name, part in leaf.items()}
    if isinstance(leaf, tuple | list) and not hasattr(leaf, "_fields"):
        return type(leaf)(map(plain, leaf))
    return make_state(type(leaf).__name__, {_name(key): plain(x) for key, x in _children(leaf)})


def _children(node: Any) -> list[tuple[Any, Any]]:
    """The key and the value of every child of a node."""
    found, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(path[0], child) for path, child in found]


def _name(key: object) -> str:
    name = str(name_of(key))
    return name if name.isidentifier() else f"part_{name}"


def restored(leaves: Leaves, like: Leaves) -> Leaves:
    """Leaves that were stored, as the pytrees that they were.

    Flax NNX keeps an optimizer state in containers of its own, in which a leaf that is a tuple
    comes back as a mapping.
    """
    stacks: dict[Any, Together] = {}

    def of(leaf: Any, old: Any) -> Any:
        if type(leaf) is not Part or is_missing(old):
            return restored_leaf(leaf, old)
        arrays, structure = jax.tree.flatten(old)  # what is stored alike may be of several forms
        form = id(leaf.of), structure, tuple(map(_is_flag, arrays))
        if form not in stacks:
            stacks[form] = leaf.of.with_stack(restored_leaf(leaf.of.stack, old))
        return Part(stacks[form], leaf.number)

    pairs = enumerate(leaves.held)
    return Leaves((of(leaf, like.abstract(i)) for i, leaf in pairs), leaves.treedef)


def restored_leaf(leaf: Any, like: object) -> Any:
    """One of them; `like` is the leaf, or abstract value, whose form it takes."""
    if hasattr(leaf, "dtype"):
        return leaf != 0 if _is_flag(like) and leaf.dtype != jnp.bool_ else leaf
    if is_missing(like):
        return like
    if hasattr(like, "dtype"):
        (leaf,) = jax.tree.leaves(leaf)
        return restored_leaf(leaf, like)
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(structure, [restored_leaf(_at(leaf, p), x) for p, x in paths])


def _is_flag(like: object) -> bool:
    return isinstance(like, bool) or getattr(like, "dtype", None) == jnp.bool_


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    """What is stored at a path, however the containers on the way were renamed."""
    for key in path:
        name = name_of(key)
        if isinstance(node, Mapping):
            node = node[name] if name in node else node[str(name)]
        elif isinstance(name, int):
            node = node[name]
        else:
            node = getattr(node, _name(key))
    return node


def own_arrays(tree: Tree) -> Tree:
    """NumPy's arrays and numbers as arrays of JAX, copied: whoever made them may overwrite them."""
    own: Tree = jax.tree.map(own_array, tree)
    return own


def own_array(leaf: object) -> object:
    """A leaf of NumPy as an array of JAX, others as they are."""
    return jnp.array(seen_anew(leaf)) if isinstance(leaf, np.ndarray | np.generic) else leaf


def owned(state: Tree, *others: object) -> Tree:
    """The state, in which no array is one of the others' or occurs twice.

    Then it can be donated, and nothing that is donated or overwritten elsewhere changes it. In a
    compiled program every output has memory of its own anyway, and the copies cost nothing.

    Args:
      state: a tree of arrays.
      *others: what the caller has and keeps.
    """
    taken = {id(leaf) for leaf in jax.tree.leaves(others)}

    def own(leaf: object) -> object:
        if id(leaf) in taken and hasattr(leaf, "dtype"):
            return jnp.array(leaf, copy=True)
        taken.add(id(leaf))
        return leaf

    owned_state: Tree = jax.tree.map(own, state)
    return owned_state

"""Something for each leaf: the masks, labels and predicates that choose leaves."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

import jax
import numpy as np
import optax

from .context import Context
from .domains import is_flag
from .errors import FlowError
from .hyperparameters import Mask
from .paths import joined, leaf_names, plain_path
from .refusing import refusing
from .values import Leaves, is_missing

Selector: TypeAlias = Mask
"""Which leaves: a predicate of a leaf, a tree of booleans, or a function params -> such a tree."""


def selected(select: Selector, tree: Leaves, context: Context) -> list[bool]:
    """One boolean per leaf, from a selector; raises ValueError for one that does not fit."""
    if not _is_function(select, is_flag):
        return _flags(select, tree)
    if not getattr(select, "of_leaf", False):
        try:
            return _flags(select(_tree_of(tree, context)), tree)
        except FlowError:
            raise
        except (AttributeError, TypeError):  # a predicate of a leaf, given a tree
            pass
    return [not is_missing(leaf) and bool(select(leaf)) for leaf in tree.values]


def labels_of(param_labels: object, tree: Leaves, context: Context) -> list[Any]:
    """One label per leaf, from a tree of labels, or a function from the params to one."""
    if _is_function(param_labels, _is_label):
        param_labels = param_labels(_tree_of(tree, context))
    return _per_leaf(param_labels, tree, "param_labels", "a label")


def _is_function(
    given: object, is_value: Callable[[object], bool]
) -> TypeGuard[Callable[..., Any]]:
    """Whether it is to be called; a tree of values may be callable too, as modules are."""
    if not callable(given):
        return False
    if jax.tree_util.all_leaves([given]):
        return True
    leaves = jax.tree.leaves(given)
    return not (leaves and all(map(is_value, leaves)))


def _is_traced(flag: object) -> bool:
    try:
        bool(flag)
    except jax.errors.ConcretizationTypeError:
        return True
    return False


def _is_label(value: object) -> bool:
    return isinstance(value, str | int)


def _tree_of(tree: Leaves, context: Context) -> optax.Params:
    return (tree if context.params is None else context.params).tree()


def _flags(mask: object, tree: Leaves) -> list[bool]:
    flags = [not is_missing(x) and x for x in _per_leaf(mask, tree, "mask", "a boolean")]
    for index, flag in enumerate(flags):
        if not is_flag(flag) or _is_traced(flag):
            raise ValueError(
                f"mask: a mask must be a tree of Python booleans shaped like the params, or a "
                f"prefix of it; at leaf {tree.path(index)} it is {flag!r}"
            )
    return list(map(bool, flags))


def _per_leaf(given: object, tree: Leaves, what: str, one: str) -> list[Any]:
    """What a tree, or a prefix, has for each leaf; in other containers it is found by name."""
    numbered = tree.treedef.unflatten(range(len(tree)))
    try:
        spread = jax.tree.map(
            lambda x, part: [x] * len(jax.tree.leaves(part)), given, numbered, is_leaf=is_missing
        )
    except (ValueError, TypeError, KeyError):
        return _by_name(given, tree, what, one)
    return jax.tree.leaves(spread, is_leaf=is_missing)


def _by_name(given: object, tree: Leaves, what: str, one: str) -> list[Any]:
    paths = jax.tree_util.tree_flatten_with_path(given, is_leaf=is_missing)[0]
    entries = {tuple(map(str, plain_path(path))): value for path, value in paths}
    found, used = [], set()
    for name in leaf_names(tree.treedef):
        parts = tuple(map(str, name))
        prefixes = (parts[:length] for length in range(len(parts), -1, -1))
        entry = next((prefix for prefix in prefixes if prefix in entries), None)
        if entry is None:
            raise ValueError(
                f"{what}: it has nothing for the leaf {joined(name)}; give {one} for every leaf or "
                "subtree of the params, in their structure, as jax.tree.map over them makes it"
            )
        used.add(entry)
        found.append(entries[entry])
    strange = [joined(name) for name in entries if name not in used]
    if strange:
        raise ValueError(
            f"{what}: it has {', '.join(strange)}, which the params have not; give {one} for every "
            "leaf or subtree of the params, in their structure"
        )
    return found


@refusing
def leaf_where(predicate: Callable[[Any], bool]) -> Selector:
    """Selects leaves by a predicate of the leaf, such as `leaf_where(lambda x: x.ndim == 2)`.

    A selector of leaves.
    """

    def select(leaf: Any) -> bool:
        return predicate(leaf)

    select.of_leaf = True  # type: ignore[attr-defined]
    select.__doc__ = "A selector of leaves, for `split`, `masked` and their like."
    select.__name__ = getattr(predicate, "__name__", "select").strip("<>")
    return select


@leaf_where
@refusing
def matrices(leaf: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> bool:
    """Selects the two-dimensional leaves."""
    return leaf.ndim == 2

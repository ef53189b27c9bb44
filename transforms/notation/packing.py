"""Branches and states keep leaves that are tiny, alike and many in stacks: one array for many."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
from jax.tree_util import PyTreeDef

from . import crowds
from .crowds import Places, parted, parts_by_place, stack_of
from .known import choose, is_known
from .members import inside_shard_map
from .sharding import spec_of
from .stacks import TINIER
from .values import Leaves, Part, Together


@jax.tree_util.register_pytree_node_class
class _Packed:
    """Leaves as they leave a branch: what is tiny, alike and many in stacks.

    Attributes:
      children: the stacks, and the other leaves.
      form: the structure, the places of each stack, and whether it is a tree within a state.
    """

    def __init__(
        self, children: Sequence[Any], form: tuple[PyTreeDef, tuple[Places, ...], bool]
    ) -> None:
        self.children, self.form = children, form

    @classmethod
    def of(cls, tree: Leaves, is_state: bool) -> "_Packed":
        places = tiny_crowds(tree)
        together = {i for where in places for i in where}
        others = [tree.values[i] for i in range(len(tree)) if i not in together]
        stacks = [stack_of(tree, where) for where in places]
        return cls([stacks, others], (tree.treedef, places, is_state))

    def unpacked(self) -> Any:
        """The leaves again, or the tree that they were."""
        treedef, places, is_state = self.form
        stacks, others = self.children
        found = dict(zip(places, stacks, strict=True))
        parts, rest = parts_by_place(found), iter(others)
        values = [parts[i] if i in parts else next(rest) for i in range(treedef.num_leaves)]
        return treedef.unflatten(values) if is_state else Leaves(values, treedef, found)

    def tree_flatten(self) -> tuple[Sequence[Any], Any]:
        return self.children, self.form

    @classmethod
    def tree_unflatten(cls, form: Any, children: Sequence[Any]) -> "_Packed":
        return cls(children, form)


def tiny_crowds(tree: Leaves) -> tuple[Places, ...]:
    """The places of leaves that are alike, tiny and many; abstract ones will do."""
    kinds: dict[Hashable, list[int]] = {}
    for i in range(len(tree)):
        kind = _abstract_kind(tree.abstract(i))
        if kind is not None:
            kinds.setdefault(kind, []).append(i)
    return tuple(tuple(where) for where in kinds.values() if len(where) >= crowds.MANY)


def _abstract_kind(leaf: Any) -> Hashable | None:
    """What is the same of leaves that are alike in whichever branch they are made."""
    arrays, structure = jax.tree.flatten(leaf)
    if not arrays or any(not hasattr(x, "dtype") or x.size > TINIER for x in arrays):
        return None
    return (structure, *((x.shape, x.dtype, spec_of(x)) for x in arrays))


def choose_leaves(
    condition: bool | jax.Array,
    taken: Callable[[], Any],
    other: Callable[[], Any],
    check_both: bool = False,
    treedef: PyTreeDef | None = None,
) -> Any:
    """`choose`, where trees of leaves stay in stacks across the branch.

    Args:
      condition: a boolean.
      taken: what runs if it holds; the result is, or holds, trees of leaves.
      other: what runs otherwise.
      check_both: see `choose`.
      treedef: structure of trees within states that stay in stacks too, see `in_stacks`.
    """
    if is_known(condition):
        return choose(condition, taken, other, check_both=check_both)

    def packed(branch: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: _each_tree(_Packed.of, branch(), treedef)

    found = choose(condition, packed(taken), packed(other), check_both=check_both)
    return jax.tree.map(_unpacked, found, is_leaf=lambda node: isinstance(node, _Packed))


def _unpacked(node: Any) -> Any:
    return node.unpacked() if isinstance(node, _Packed) else node


def _each_tree(fn: Callable[[Leaves, bool], Any], value: Any, treedef: PyTreeDef | None) -> Any:
    """`fn` of the trees of leaves in a value, and of the trees of that structure in states."""

    def is_tree(node: object) -> bool:
        return isinstance(node, Leaves) or _fits(treedef, node)

    def of(node: Any) -> Any:
        if isinstance(node, Leaves):
            return fn(node, False)
        if _fits(treedef, node):
            assert treedef is not None
            return fn(Leaves.up_to(treedef, node), True)
        return in_leaves(node)

    return jax.tree.map(of, value, is_leaf=is_tree)


def _fits(treedef: PyTreeDef | None, node: object) -> bool:
    if treedef is None or treedef.num_leaves < crowds.MANY or hasattr(node, "dtype"):
        return False
    try:
        treedef.flatten_up_to(node)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def in_stacks(state: Any, treedef: PyTreeDef) -> Any:
    """A state whose trees like the params have parts of stacks for leaves that are tiny and many.

    It is for what is read, kept or held within a branch: one array goes in for many.

    Args:
      state: a tree of arrays, or leaves.
      treedef: the structure of the params.
    """
    if treedef.num_leaves < crowds.MANY or inside_shard_map():
        return state
    return _each_tree(_gathered_tree, state, treedef)


def _gathered_tree(tree: Leaves, is_state: bool) -> Any:
    held = list(tree.held)
    for where in tiny_crowds(tree):
        if not all(type(held[i]) is Part for i in where):
            leaves = [tree.values[i] for i in where]
            parts = Together(stack_of(tree, where), len(where), parted, leaves)
            for i, part in zip(where, parts, strict=True):
                held[i] = part
    return tree.treedef.unflatten(held) if is_state else Leaves(held, tree.treedef, tree.stacks)


def in_leaves(state: Any) -> Any:
    """The state with arrays again; the reverse of `in_stacks`."""
    return jax.tree.map(lambda x: x.of.leaves()[x.number] if type(x) is Part else x, state)


def has_parts(state: Any) -> bool:
    """Whether leaves of the state are parts of stacks."""
    return any(type(x) is Part for x in jax.tree.leaves(state))

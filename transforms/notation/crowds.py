"""Many small leaves that are alike go through one program.

What is done to every leaf by itself is compiled once per leaf: hundreds of equal ones make a
program of as many equal parts. Where that is more than to gather the leaves in a stack and to part
them again, it is done to the stack, one program for each kind of leaf. Here are those that are
alike, and their stacks.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

import jax
import numpy as np

from .known import is_known
from .stacks import SMALL, TINY, stacked, unstacked
from .stackwise import stackwise
from .values import Leaves, Part, Together, is_missing

MANY = 16
"""So many leaves that are alike are a crowd."""

Places = tuple[int, ...]

Function = TypeVar("Function", bound=Callable[..., Any])


def is_crowded(values: Sequence[Any]) -> bool:
    """Whether there may be a crowd among the leaves."""
    return len(values) >= MANY and (any(map(_is_part, values)) or not is_known(values))


def _is_part(value: object) -> bool:
    return type(value) is Part or (type(value) is tuple and any(map(_is_part, value)))


def crowds(rows: Sequence[Any], most: int = SMALL, many: int | None = None) -> list[Places]:
    """The places of rows that are alike and many; each row is a tree of arrays of some entries."""
    many = MANY if many is None else many
    groups: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        kind = _kind(row, most)
        if kind is not None:
            groups.setdefault(kind, []).append(i)
    return [tuple(where) for where in groups.values() if len(where) >= many]


def _kind(row: object, most: int) -> Hashable | None:
    """What tells rows apart; None of one that is for itself."""
    arrays, structure = jax.tree.flatten(row)
    if not arrays or any(_is_alone(x, most) for x in arrays):
        return None
    return (structure, *(x.of if type(x) is Part else jax.typeof(x) for x in arrays))


def _is_alone(array: Any, most: int) -> bool:
    if type(array) is Part:
        return any(x.size > most * len(array.of) for x in jax.tree.leaves(array.of.stack))
    return not hasattr(array, "dtype") or array.size > most


def together(
    fn: Callable[..., Any], rows: Sequence[Any], *stacks: jax.Array | np.ndarray
) -> list[Any]:
    """`fn` of each row, of the stack of all; rows and results are trees of arrays.

    Args:
      fn: `(*parts of the stacks, row) -> result`.
      rows: alike.
      *stacks: arrays that are stacked already.
    """
    return parted(stackwise(fn, len(rows))(*stacks, gathered(rows)), len(rows))


def gathered(rows: Sequence[Any]) -> Any:
    """Trees that are alike as one tree of stacks."""
    columns, structure = zip(*map(jax.tree.leaves, rows), strict=True), jax.tree.structure(rows[0])
    return jax.tree.unflatten(structure, [stacked(column) for column in columns])


def parted(stack: Any, count: int) -> list[Any]:
    """A tree of stacks as so many trees; the reverse of `gathered`."""
    found, structure = jax.tree.flatten(stack)
    parts = zip(*unstacked(*found), strict=True) if found else [()] * count
    return [jax.tree.unflatten(structure, part) for part in parts]


def with_stacks(*trees: Leaves, most: int = TINY) -> tuple[Leaves, ...]:
    """The trees, with stacks of their leaves that are alike and many.

    Args:
      *trees: of one structure.
      most: entries of a leaf that is stacked; by default only those that are copied for nothing.
    """
    rows = list(zip(*(tree.held for tree in trees), strict=True))
    for where in crowds(rows, most) if is_crowded(rows) else ():
        trees = tuple(tree.with_stacks({where: stack_of(tree, where)}) for tree in trees)
    return trees


def stack_of(tree: Leaves, where: Places) -> Any:
    """The leaves at these places as one."""
    if where in tree.stacks:
        return tree.stacks[where]
    first = tree.held[where[0]]
    if type(first) is Part and first.of.count == len(where):
        whole_of_it = enumerate(tree.held[i] for i in where)
        if all(type(x) is Part and x.of is first.of and x.number == n for n, x in whole_of_it):
            return first.of.stack
    return gathered([tree.values[i] for i in where])


def of_stacks(fn: Function) -> Function:
    """Marks a function of whole trees that reads their stacks where there are some."""
    fn.reads_stacks = True  # type: ignore[attr-defined]
    return fn


def reads_stacks(fn: object) -> bool:
    """Whether a function is marked so, whatever arguments it was given already."""
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "reads_stacks", False)


def by_stacks(*trees: Leaves) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The stacks that all trees have at the same places, and the other leaves, row by row.

    Leaves that are missing from a tree are left out.
    """
    found: set[int] = set()
    stacks = []
    for where in trees[0].stacks:
        if found.isdisjoint(where) and all(where in tree.stacks for tree in trees):
            found.update(where)
            stacks.append(tuple(tree.stacks[where] for tree in trees))
    others = [i for i in range(len(trees[0])) if i not in found]
    return _whole(stacks), _whole(tuple(tree.values[i] for tree in trees) for i in others)


def _whole(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [row for row in rows if not any(map(is_missing, row))]


def units_of(tree: Leaves) -> list[Any]:
    """The stacks of a tree, and its other leaves that are there: arrays with all its entries."""
    together = {i for where in tree.stacks for i in where}
    others = [i for i in range(len(tree)) if i not in together and not is_missing(tree.held[i])]
    return [*tree.stacks.values(), *(tree.values[i] for i in others)]


def of_units(units: Iterable[Any], like: Leaves) -> Leaves:
    """The leaves again; the reverse of `units_of`."""
    each = iter(units)
    stacks = {where: next(each) for where in like.stacks}
    found = parts_by_place(stacks)
    values = (
        found[i] if i in found else leaf if is_missing(leaf) else next(each)
        for i, leaf in enumerate(like.held)
    )
    return Leaves(values, like.treedef, stacks)


def entry_of(tree: Leaves, at: int) -> Leaves:
    """Of leaves that are tuples of arrays those at this place."""
    stacks = {where: stack[at] for where, stack in tree.stacks.items()}
    found = parts_by_place(stacks)
    leaves = (found[i] if i in found else tree.values[i][at] for i in range(len(tree)))
    return Leaves(leaves, tree.treedef, stacks)


def parts_by_place(stacks: Mapping[Places, Any]) -> dict[int, Any]:
    """What stands for the leaves of these stacks, by their places; a stack may be missing."""
    found: dict[int, Any] = {}
    for where, stack in stacks.items():
        parts = (
            repeat(stack, len(where)) if is_missing(stack) else Together(stack, len(where), parted)
        )
        found.update(zip(where, parts, strict=True))
    return found

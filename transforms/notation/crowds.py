"""Many small leaves that are alike go through one program.

What is done to every leaf by itself is compiled once per leaf: hundreds of equal ones make a
program of as many equal parts. Where that is more than to gather the leaves in a stack and to part
them again, it is done to the stack, one program for each kind of leaf.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .known import is_known
from .sharding import explicit_axes
from .stacks import SMALL, TINY, parts_of, stacked, unstacked
from .values import MISSING, Leaves, is_missing

MANY = 16
"""So many leaves that are alike are a crowd."""

COPIED = 4
"""Operations for every array that goes into a stack or comes out of it: less is not worth it."""

COPIED_LARGER = 6.5
"""The same for arrays of more than `TINY` entries, whose copies a step waits for."""


Places = tuple[int, ...]
Function = TypeVar("Function", bound=Callable[..., Any])


def is_crowded(values: Sequence[Any]) -> bool:
    """Whether there may be a crowd among the leaves."""
    return len(values) >= MANY and not is_known(values)


def crowds(rows: Sequence[Any], most: int = SMALL) -> list[Places]:
    """The places of rows that are alike and many; each row is a tree of arrays of some entries."""
    groups: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        kind = _kind(row, most)
        if kind is not None:
            groups.setdefault(kind, []).append(i)
    return [tuple(where) for where in groups.values() if len(where) >= MANY]


def _kind(row: object, most: int) -> Hashable | None:
    """What tells rows apart; None of one that is for itself."""
    arrays, structure = jax.tree.flatten(row)
    alone = any(not hasattr(x, "dtype") or x.size > most or explicit_axes(x) for x in arrays)
    if not arrays or alone:
        return None
    return (structure, *map(jax.typeof, arrays))


def together(
    fn: Callable[..., Any], rows: Sequence[Any], *stacks: jax.Array | np.ndarray
) -> list[Any]:
    """`fn` of each row, of the stack of all; rows and results are trees of arrays.

    Args:
      fn: `(*parts of the stacks, row) -> result`.
      rows: alike.
      *stacks: arrays that are stacked already.
    """
    return parted(jax.vmap(fn)(*stacks, gathered(rows)), len(rows))


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
    rows = list(zip(*(tree.values for tree in trees), strict=True))
    for where in crowds(rows, most) if is_crowded(rows) else ():
        trees = tuple(tree.with_stacks({where: stack_of(tree, where)}) for tree in trees)
    return trees


def stack_of(tree: Leaves, where: Places) -> Any:
    """The leaves at these places as one."""
    if where in tree.stacks:
        return tree.stacks[where]
    return gathered([tree.values[i] for i in where])


def of_stacks(fn: Function) -> Function:
    """Marks a function of whole trees that reads their stacks where there are some."""
    fn.reads_stacks = True  # type: ignore[attr-defined]
    return fn


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
    rows = enumerate(zip(*(tree.values for tree in trees), strict=True))
    return _whole(stacks), _whole(row for i, row in rows if i not in found)


def _whole(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [row for row in rows if not any(map(is_missing, row))]


def is_worth_it(fn: Callable[..., Any], row: object) -> bool:
    """Whether what `fn` does to a row is more than to put it into a stack and to take it out."""
    try:
        program = jax.make_jaxpr(fn)(row)
    except (TypeError, ValueError):
        return False  # it says itself what is wrong, and at which leaf
    arrays = (*program.in_avals, *program.out_avals)
    copied = sum(COPIED if math.prod(x.shape) <= TINY else COPIED_LARGER for x in arrays)
    return not program.effects and operations(program.jaxpr) > copied


def operations(jaxpr: core.Jaxpr) -> int:
    """How many operations a program has, those of its parts included."""
    inner = (
        part for eqn in jaxpr.eqns for part in jax.tree.leaves(eqn.params, is_leaf=_is_program)
    )
    return len(jaxpr.eqns) + sum(
        operations(getattr(p, "jaxpr", p)) for p in filter(_is_program, inner)
    )


def _is_program(value: object) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


def map_alike(
    fn: Callable[..., Any],
    *columns: Sequence[Any],
    stack: jax.Array | np.ndarray | None = None,
    most: int = SMALL,
) -> list[Any]:
    """`fn` of every row of arrays; those that are alike and many in one program.

    Args:
      fn: function of arrays that does not remember its calls.
      *columns: for every leaf its arguments, trees of arrays.
      stack: an array with a part for every leaf, which comes first among its arguments, such as
        keys; it may be of NumPy.
      most: entries of an array that is stacked for this.
    """
    rows = list(zip(*columns, strict=True))
    found: dict[int, Any] = {}
    if is_crowded(rows):
        for where in crowds(rows, most):
            stacks = () if stack is None else (stack[np.asarray(where)],)
            done = together(lambda *row: fn(*row[:-1], *row[-1]), [rows[i] for i in where], *stacks)
            found.update(zip(where, done, strict=True))
    alone = [i for i in range(len(rows)) if i not in found]
    found |= {i: fn(*(() if stack is None else (stack[i],)), *rows[i]) for i in alone}
    return [found[i] for i in range(len(rows))]


def in_batches(
    fn: Callable[[list[tuple[jax.Array, ...]]], list[tuple[jax.Array, ...]]],
    rows: Sequence[tuple[jax.Array, ...]],
) -> list[tuple[jax.Array, ...]]:
    """`fn` of all rows at once, in which those that are alike and many are one of stacks.

    Args:
      fn: makes as many rows as there are; its arrays may have a batch axis in front.
      rows: tuples of arrays.
    """
    groups = crowds(rows) if is_crowded(rows) else []
    stacked = {i for where in groups for i in where}
    alone = [i for i in range(len(rows)) if i not in stacked]
    made = fn([gathered([rows[i] for i in where]) for where in groups] + [rows[i] for i in alone])
    found = dict(zip(alone, made[len(groups) :], strict=True))
    for where, stack in zip(groups, made, strict=False):
        found.update(zip(where, parted(stack, len(where)), strict=True))
    return [found[i] for i in range(len(rows))]


def map_leaves(
    fn: Callable[..., Any],
    tree: Leaves,
    *others: Leaves,
    stack: jax.Array | None = None,
    most: int = SMALL,
) -> Leaves:
    """As `tree.map(fn, *others)`, with those leaves together that are alike and many.

    They stay together in the result: what is mapped next is not stacked again.

    Args:
      fn: see `map_alike`.
      tree: whose leaves; those that are missing here or in another stay so.
      *others: trees of the same structure.
      stack: an array with a part for every leaf that is there.
      most: entries of an array of a leaf that is stacked for this.
    """
    stacks, made = _mapped(fn, (tree, *others), stack, most)
    for where, whole in stacks.items():
        made.update(zip(where, parted(whole, len(where)), strict=True))
    return Leaves((made.get(i, MISSING) for i in range(len(tree))), tree.treedef, stacks)


def _mapped(
    fn: Callable[..., Any],
    trees: tuple[Leaves, ...],
    stack: jax.Array | None = None,
    most: int = SMALL,
) -> tuple[dict[Places, Any], dict[int, Any]]:
    """What `map_leaves` finds, in stacks by their places, and by the places of other leaves."""
    rows = list(zip(*(t.values for t in trees), strict=True))
    present = [i for i, row in enumerate(rows) if not any(map(is_missing, row))]
    there = dict(zip(present, range(len(present)), strict=True))
    stacks: dict[Places, Any] = {}
    for where in crowds(rows, most) if is_crowded(rows) else ():
        if there.keys() >= set(where):
            own = () if stack is None else (stack[np.asarray([there[i] for i in where])],)
            stacks[where] = jax.vmap(fn)(*own, *(stack_of(t, where) for t in trees))
    found = {i for where in stacks for i in where}
    return stacks, {
        i: fn(*(() if stack is None else (stack[number],)), *rows[i])
        for i, number in there.items()
        if i not in found
    }


def vector_of(tree: Leaves) -> jax.Array:
    """The entries of all leaves, which are vectors, one leaf after the other."""
    stacked = {i for where in tree.stacks for i in where}
    others = [i for i in range(len(tree)) if i not in stacked]
    places = [i for where in tree.stacks for i in where] + others
    parts = [stack.ravel() for stack in tree.stacks.values()]
    vector = jnp.concatenate(parts + [tree.values[i] for i in others])
    if places == sorted(places):
        return vector
    sizes = [leaf.size for leaf in tree.values]
    return vector[np.argsort(_entries(sizes, places))]


def split_vector(vector: jax.Array, sizes: Sequence[int]) -> Leaves:
    """A vector as leaves of these sizes, those of one size stacked; the reverse of `vector_of`."""
    alike: dict[int, list[int]] = {}
    for i, size in enumerate(sizes):
        alike.setdefault(size, []).append(i)
    many = [tuple(where) for where in alike.values() if len(where) >= MANY]
    stacks = (
        {}
        if is_known(vector)
        else {where: vector[_entries(sizes, where)].reshape(len(where), -1) for where in many}
    )
    return Leaves(parts_of(vector, sizes), jax.tree.structure([0] * len(sizes)), stacks)


def entry_of(tree: Leaves, at: int) -> Leaves:
    """Of leaves that are tuples of arrays those at this place."""
    stacks = {where: stack[at] for where, stack in tree.stacks.items()}
    return Leaves((leaf[at] for leaf in tree.values), tree.treedef, stacks)


def _entries(sizes: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """Where the entries of the leaves at these places stand in the vector of all."""
    ends = np.cumsum(sizes)
    return np.concatenate([np.arange(ends[i] - sizes[i], ends[i]) for i in places])


def numbers_of(fn: Callable[..., Any], *trees: Leaves, most: int = SMALL) -> jax.Array:
    """As `map_leaves`, for a function that makes a number of a leaf: all as one vector."""
    stacks, made = _mapped(fn, trees, most=most)
    order = np.argsort([i for where in (*stacks, made) for i in where])
    vector = jnp.concatenate([*stacks.values(), *([jnp.stack([*made.values()])] if made else [])])
    return vector if (order == np.arange(len(order))).all() else vector[order]


def one_each(vectors: jax.Array, like: Leaves) -> Leaves:
    """What has a part for every leaf, along its leading axis, as leaves stacked like others."""
    stacks = {where: vectors[np.asarray(where)] for where in like.stacks}
    return Leaves(vectors, like.treedef, stacks)

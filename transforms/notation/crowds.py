"""Many small leaves that are alike go through one program.

What is done to every leaf by itself is compiled once per leaf: hundreds of equal ones make a
program of as many equal parts. Where that is more than to gather the leaves in a stack and to part
them again, it is done to the stack, one program for each kind of leaf.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from .known import is_known
from .sharding import explicit_axes
from .stacks import SMALL, TINY, stacked, unstacked
from .values import MISSING, Leaves, is_missing

MANY = 16
"""So many leaves that are alike are a crowd."""

COPIED = 4
"""Operations for every array that goes into a stack or comes out of it: less is not worth it."""

COPIED_LARGER = 6.5
"""The same for arrays of more than `TINY` entries, whose copies a step waits for."""


def is_crowded(values: Sequence[Any]) -> bool:
    """Whether there may be a crowd among the leaves."""
    return len(values) >= MANY and not is_known(values)


def crowds(rows: Sequence[Any]) -> list[list[int]]:
    """The places of rows that are alike and many; each row is a tree of arrays."""
    groups: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        kind = _kind(row)
        if kind is not None:
            groups.setdefault(kind, []).append(i)
    return [where for where in groups.values() if len(where) >= MANY]


def _kind(row: object) -> Hashable | None:
    """What tells rows apart; None of one that is for itself."""
    arrays, structure = jax.tree.flatten(row)
    alone = any(not hasattr(x, "dtype") or x.size > SMALL or explicit_axes(x) for x in arrays)
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
    columns, structure = zip(*map(jax.tree.leaves, rows), strict=True), jax.tree.structure(rows[0])
    whole = jax.tree.unflatten(structure, [stacked(column) for column in columns])
    found, shape = jax.tree.flatten(jax.vmap(fn)(*stacks, whole))
    parts = zip(*unstacked(*found), strict=True) if found else [()] * len(rows)
    return [jax.tree.unflatten(shape, part) for part in parts]


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
) -> list[Any]:
    """`fn` of every row of arrays; those that are alike and many in one program.

    Args:
      fn: function of arrays that does not remember its calls.
      *columns: for every leaf its arguments, trees of arrays.
      stack: an array with a part for every leaf, which comes first among its arguments, such as
        keys; it may be of NumPy.
    """
    rows = list(zip(*columns, strict=True))
    found: dict[int, Any] = {}
    if is_crowded(rows):
        for where in crowds(rows):
            stacks = () if stack is None else (stack[np.asarray(where)],)
            done = together(lambda *row: fn(*row[:-1], *row[-1]), [rows[i] for i in where], *stacks)
            found.update(zip(where, done, strict=True))
    alone = [i for i in range(len(rows)) if i not in found]
    found |= {i: fn(*(() if stack is None else (stack[i],)), *rows[i]) for i in alone}
    return [found[i] for i in range(len(rows))]


def map_leaves(
    fn: Callable[..., Any], tree: Leaves, *others: Leaves, stack: jax.Array | None = None
) -> Leaves:
    """As `tree.map(fn, *others)`, with those leaves together that are alike and many.

    Args:
      fn: see `map_alike`.
      tree: whose leaves; those that are missing here or in another stay so.
      *others: trees of the same structure.
      stack: an array with a part for every leaf that is there.
    """
    trees = (tree, *others)
    rows = enumerate(zip(*(t.values for t in trees), strict=True))
    places = [i for i, row in rows if not any(map(is_missing, row))]
    columns = ([t.values[i] for i in places] for t in trees)
    made = dict(zip(places, map_alike(fn, *columns, stack=stack), strict=True))
    return Leaves((made.get(i, MISSING) for i in range(len(tree))), tree.treedef)

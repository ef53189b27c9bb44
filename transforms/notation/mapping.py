"""A function of every leaf, in one program for those that are alike and many."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .crowds import MANY, Places, crowds, is_crowded, parts_by_place, stack_of, together
from .sharding import explicit_axes
from .stacks import FEW, SMALL, unstacked
from .stackwise import stackwise
from .values import MISSING, Leaves, either, is_missing
from .worth import traced_once


def shapes_of(fn: Callable[[Any], Any], tree: Leaves) -> Leaves:
    """What `fn` makes of each leaf, in shapes and dtypes, found once for those that are alike."""
    found: dict[Hashable, Any] = {}

    def of_leaf(leaf: Any) -> Any:
        arrays, structure = jax.tree.flatten(leaf)
        if is_missing(leaf) or any(explicit_axes(x) for x in arrays):
            return MISSING if is_missing(leaf) else jax.eval_shape(fn, leaf)
        kind = (structure, *((x.shape, x.dtype) for x in arrays))
        if kind not in found:
            found[kind] = jax.eval_shape(fn, leaf)
        return found[kind]

    return Leaves((of_leaf(tree.abstract(i)) for i in range(len(tree))), tree.treedef)


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
    part = {} if stack is None else _parts_of(stack, alone)
    found |= {i: fn(*(() if stack is None else (part[i],)), *rows[i]) for i in alone}
    return [found[i] for i in range(len(rows))]


def in_batches(fn: Callable[[list[tuple[Any, ...]]], list[Any]], *trees: Leaves) -> Leaves:
    """`fn` of the rows of all leaves at once, in which those alike and many are one of stacks.

    Args:
      fn: makes as many rows as there are; its arrays may have a batch axis in front.
      *trees: of one structure; a leaf that is missing in one is missing in the result.
    """
    rows = list(zip(*(tree.held for tree in trees), strict=True))
    there = [i for i, row in enumerate(rows) if not any(map(is_missing, row))]
    groups = [w for w in crowds(rows) if set(w) <= set(there)] if is_crowded(rows) else []
    together = {i for where in groups for i in where}
    alone = [i for i in there if i not in together]
    made = fn(
        [tuple(stack_of(tree, where) for tree in trees) for where in groups]
        + [tuple(tree.values[i] for tree in trees) for i in alone]
    )
    stacks = dict(zip(groups, made, strict=False))
    found = {**parts_by_place(stacks), **dict(zip(alone, made[len(groups) :], strict=True))}
    values = (found.get(i, MISSING) for i in range(len(rows)))
    return Leaves(values, trees[0].treedef, stacks)


def map_leaves(
    fn: Callable[..., Any],
    tree: Leaves,
    *others: Leaves,
    stack: jax.Array | np.ndarray | None = None,
    most: int = SMALL,
    many: int = MANY,
) -> Leaves:
    """As `tree.map(fn, *others)`, with those leaves together that are alike and many.

    They stay together in the result: what is mapped next is not stacked again.

    Args:
      fn: see `map_alike`.
      tree: whose leaves; those that are missing here or in another stay so.
      *others: trees of the same structure.
      stack: an array with a part for every leaf that is there.
      most: entries of an array of a leaf that is stacked for this.
      many: how many alike are stacked.
    """
    stacks, made = _mapped(fn, (tree, *others), stack, most, many)
    made |= parts_by_place(stacks)
    return Leaves((made.get(i, MISSING) for i in range(len(tree))), tree.treedef, stacks)


def _mapped(
    fn: Callable[..., Any],
    trees: tuple[Leaves, ...],
    stack: jax.Array | np.ndarray | None = None,
    most: int = SMALL,
    many: int = MANY,
) -> tuple[dict[Places, Any], dict[int, Any]]:
    """What `map_leaves` finds, in stacks by their places, and by the places of other leaves."""
    rows = list(zip(*(t.held for t in trees), strict=True))
    present = [i for i, row in enumerate(rows) if not any(map(is_missing, row))]
    there = dict(zip(present, range(len(present)), strict=True))
    stacks: dict[Places, Any] = {}
    for where in crowds(rows, most, many) if is_crowded(rows) else ():
        if there.keys() >= set(where):
            own = () if stack is None else (stack[np.asarray([there[i] for i in where])],)
            stacks[where] = stackwise(fn, len(where))(*own, *(stack_of(t, where) for t in trees))
    found = {i for where in stacks for i in where}
    numbers = {i: number for i, number in there.items() if i not in found}
    part = {} if stack is None else _parts_of(stack, [*numbers.values()])
    left = {
        i: (*(() if stack is None else (part[number],)), *(t.values[i] for t in trees))
        for i, number in numbers.items()
    }
    alike = traced_once(fn, left)
    return stacks, alike | {i: fn(*row) for i, row in left.items() if i not in alike}


def _parts_of(stack: jax.Array | np.ndarray, numbers: list[int]) -> dict[int, Any]:
    """Some parts; of many, what is made of one is no other kernel than what is made of the next."""
    if isinstance(stack, np.ndarray) or len(numbers) <= FEW:
        return {number: stack[number] for number in numbers}
    if not jnp.issubdtype(stack.dtype, jax.dtypes.prng_key):
        return dict(enumerate(unstacked(stack)[0]))
    data = unstacked(jax.random.key_data(stack))[0]
    impl = jax.random.key_impl(stack)
    return {number: jax.random.wrap_key_data(data[number], impl=impl) for number in numbers}


def map_kinds(
    fn: Callable[..., Any],
    kinds: Sequence[Hashable | None],
    *trees: Leaves,
    most: int = SMALL,
) -> Leaves:
    """As `map_leaves`, for a function of the leaf and of what is known of it: `fn(kind, *leaves)`.

    Args:
      fn: see `map_leaves`.
      kinds: of every leaf; None where there is none.
      *trees: of one structure.
      most: see `map_leaves`.
    """
    places: dict[Hashable, set[int]] = {}
    for i, kind in enumerate(kinds):
        if kind is not None:
            places.setdefault(kind, set()).add(i)
    found = (
        map_leaves(partial(fn, kind), *(t.only(where.__contains__) for t in trees), most=most)
        for kind, where in places.items()
    )
    return either(trees[0].only(lambda _: False), *found)


def numbers_of(fn: Callable[..., Any], *trees: Leaves, most: int = SMALL) -> jax.Array:
    """As `map_leaves`, for a function that makes a number of a leaf: all as one vector."""
    stacks, made = _mapped(fn, trees, most=most)
    order = np.argsort([i for where in (*stacks, made) for i in where])
    vector = jnp.concatenate([*stacks.values(), *([jnp.stack([*made.values()])] if made else [])])
    return vector if (order == np.arange(len(order))).all() else vector[order]


def one_each(vectors: jax.Array, like: Leaves) -> Leaves:
    """What has a part for every leaf, along its leading axis, as leaves stacked like others."""
    stacks = {where: vectors[np.asarray(where)] for where in like.stacks}
    found: dict[int, Any] = dict(parts_by_place(stacks))
    if len(found) < len(like):
        found = dict(enumerate(unstacked(vectors)[0])) | found
    return Leaves((found[i] for i in range(len(like))), like.treedef, stacks)

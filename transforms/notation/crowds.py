"""Many small leaves that are alike go through one program.

What is done to every leaf by itself is compiled once per leaf: hundreds of equal ones make a
program of as many equal parts. Where that is more than to gather the leaves in a stack and to part
them again, it is done to the stack, one program for each kind of leaf.
"""

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.tree_util import PyTreeDef

from .known import choose, is_known
from .members import inside_shard_map
from .sharding import explicit_axes, spec_of
from .stacks import SMALL, TINY, parts_of, stacked, unstacked, whole
from .values import MISSING, Leaves, Part, Together, either, is_missing

MANY = 16
"""So many leaves that are alike are a crowd."""

COPIED = 4
"""Operations for every array that goes into a stack or comes out of it: less is not worth it."""

COPIED_LARGER = 6.5
"""The same for arrays of more than `TINY` entries, whose copies a step waits for."""

COPIED_ONCE = 1.4
"""The same for tiny arrays where a stack serves several parts of a step."""


ALIKE = 3
"""So many leaves that are alike are traced once."""

CALL = 4
"""Operations that take as long to trace as a call of a function that is traced."""

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
    rows = list(zip(*(tree.held for tree in trees), strict=True))
    for where in crowds(rows, most) if is_crowded(rows) else ():
        trees = tuple(tree.with_stacks({where: stack_of(tree, where)}) for tree in trees)
    return trees


@jax.tree_util.register_pytree_node_class
class _Packed:
    """Leaves as they leave a branch: what is tiny, alike and many in stacks."""

    def __init__(
        self, children: Sequence[Any], form: tuple[PyTreeDef, tuple[Places, ...], bool]
    ) -> None:
        self.children, self.form = children, form

    @classmethod
    def of(cls, tree: Leaves) -> "_Packed":
        places = tiny_crowds(tree)
        together = {i for where in places for i in where}
        others = (
            [x for i, x in enumerate(tree.values) if i not in together]
            if (len(together) < len(tree))
            else []
        )
        return cls(
            [[stack_of(tree, where) for where in places], others], (tree.treedef, places, False)
        )

    def leaves(self) -> Leaves:
        """The leaves again."""
        treedef, places, _ = self.form
        stacks, others = self.children
        found = dict(zip(places, stacks, strict=True))
        parts, rest = parts_by_place(found), iter(others)
        count = treedef.num_leaves
        values = (parts[i] if i in parts else next(rest) for i in range(count))
        return Leaves(values, treedef, found)

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
    return tuple(tuple(where) for where in kinds.values() if len(where) >= MANY)


def _abstract_kind(leaf: Any) -> Hashable | None:
    """What is the same of leaves that are alike in whichever branch they are made."""
    arrays, structure = jax.tree.flatten(leaf)
    if not arrays or any(not hasattr(x, "dtype") or x.size > TINY for x in arrays):
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
        return lambda: _each_tree(_packed, branch(), treedef)

    found = choose(condition, packed(taken), packed(other), check_both=check_both)
    return jax.tree.map(_unpacked, found, is_leaf=lambda node: isinstance(node, _Packed))


def _packed(tree: Leaves, is_state: bool) -> _Packed:
    found = _Packed.of(tree)
    found.form = (*found.form[:2], is_state)
    return found


def _unpacked(node: Any) -> Any:
    if not isinstance(node, _Packed):
        return node
    leaves = node.leaves()
    return leaves.treedef.unflatten(leaves.held) if node.form[2] else leaves


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
    if treedef is None or treedef.num_leaves < MANY or hasattr(node, "dtype"):
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
    if treedef.num_leaves < MANY or inside_shard_map():
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


def traced_once(fn: Callable[..., Any], rows: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
    """`fn` of the rows that are alike, one function that is called for each; not of the others.

    Args:
      fn: `(*row) -> result`, trees of arrays; what is less than a call is left to others, too.
      rows: by their places.
    """
    places, values = list(rows), list(rows.values())
    found: dict[int, Any] = {}
    for where in crowds(values, sys.maxsize, ALIKE) if is_crowded(values) else ():
        program, _ = _program(fn, *values[where[0]])
        if program and operations(program.jaxpr) > CALL:
            once = jax.jit(fn)
            found |= {places[i]: once(*values[i]) for i in where}
    return found


def _program(fn: Callable[..., Any], *args: Any) -> tuple[core.ClosedJaxpr | None, Any]:
    """What `fn` does, and the shapes of what it makes.

    None where it fails, and says itself what is wrong, and at which leaf.
    """
    try:
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    except (TypeError, ValueError):
        return None, None
    return program, shapes


def is_worth_it(
    fn: Callable[..., Any], row: Sequence[Any], passed_on: Sequence[bool] | None = None
) -> bool:
    """Whether what `fn` does to a row is more than to put it into a stack and to take it out.

    What is in a stack already need not be put there, but taken out for anything else.

    Args:
      fn: makes trees of arrays of a row.
      row: arrays.
      passed_on: where other parts of a step may go on with stacks, of what is made whether only
        they read it.
    """
    leaves = [x.abstract if type(x) is Part else x for x in row]
    program, shapes = _program(fn, leaves)
    if program is None:
        return False
    ready = [jax.typeof(x) for x in jax.tree.leaves([x.abstract for x in row if type(x) is Part])]
    arrays = (*program.in_avals, *program.out_avals)
    cost = _cost
    if passed_on is not None and all(map(_is_tiny, arrays)):
        made = zip(shapes, passed_on, strict=True)
        arrays = (*program.in_avals, *jax.tree.leaves([x for x, free in made if not free]))
        cost = _cost_of_one
    copied = sum(map(cost, arrays)) - 2 * sum(map(cost, ready))
    return not program.effects and operations(program.jaxpr) > copied


def _cost(array: Any) -> float:
    return COPIED if _is_tiny(array) else COPIED_LARGER


def _cost_of_one(array: Any) -> float:
    return COPIED_ONCE


def _is_tiny(array: Any) -> bool:
    return math.prod(array.shape) <= TINY


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
    made |= parts_by_place(stacks)
    return Leaves((made.get(i, MISSING) for i in range(len(tree))), tree.treedef, stacks)


def _mapped(
    fn: Callable[..., Any],
    trees: tuple[Leaves, ...],
    stack: jax.Array | np.ndarray | None = None,
    most: int = SMALL,
) -> tuple[dict[Places, Any], dict[int, Any]]:
    """What `map_leaves` finds, in stacks by their places, and by the places of other leaves."""
    rows = list(zip(*(t.held for t in trees), strict=True))
    present = [i for i, row in enumerate(rows) if not any(map(is_missing, row))]
    there = dict(zip(present, range(len(present)), strict=True))
    stacks: dict[Places, Any] = {}
    for where in crowds(rows, most) if is_crowded(rows) else ():
        if there.keys() >= set(where):
            own = () if stack is None else (stack[np.asarray([there[i] for i in where])],)
            stacks[where] = jax.vmap(fn)(*own, *(stack_of(t, where) for t in trees))
    found = {i for where in stacks for i in where}
    left = {
        i: (*(() if stack is None else (stack[number],)), *(t.values[i] for t in trees))
        for i, number in there.items()
        if i not in found
    }
    alike = traced_once(fn, left)
    return stacks, alike | {i: fn(*row) for i, row in left.items() if i not in alike}


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


def vector_of(tree: Leaves) -> jax.Array:
    """The entries of all leaves that are there and vectors, one leaf after the other."""
    there = [i for i, leaf in enumerate(tree.held) if not is_missing(leaf)]
    sizes = {i: tree.abstract(i).size for i in there}
    is_tiny = sum(sizes.values()) <= TINY * len(there)
    stacks = {w: x for w, x in tree.stacks.items() if is_tiny or _is_run(w, there)}
    stacked = {i for where in stacks for i in where}
    pieces = {where: stack.ravel() for where, stack in stacks.items()}
    pieces |= {(i,): tree.values[i] for i in there if i not in stacked}
    pieces = dict(sorted(pieces.items()))
    vector, places = whole(list(pieces.values())), [i for where in pieces for i in where]
    if places == there:
        return vector
    return vector[np.argsort(_entries([sizes.get(i, 0) for i in range(len(tree))], places))]


def _is_run(where: Places, there: Sequence[int]) -> bool:
    """Whether these are leaves next to each other."""
    first = there.index(where[0])
    return list(where) == list(there[first : first + len(where)])


def split_vector(vector: jax.Array, sizes: Sequence[int]) -> Leaves:
    """A vector as leaves of these sizes, those of one size stacked; the reverse of `vector_of`."""
    alike: dict[int, list[int]] = {}
    for i, size in enumerate(sizes):
        alike.setdefault(size, []).append(i)
    many = [tuple(w) for size, w in alike.items() if len(w) >= MANY and 0 < size <= TINY]
    stacks = (
        {}
        if is_known(vector)
        else {where: _taken(vector, sizes, where).reshape(len(where), -1) for where in many}
    )
    found: dict[int, Any] = dict(parts_by_place(stacks))
    if len(found) < len(sizes):
        found = dict(enumerate(parts_of(vector, sizes))) | found
    values = (found[i] for i in range(len(sizes)))
    return Leaves(values, jax.tree.structure([0] * len(sizes)), stacks)


def _taken(vector: jax.Array, sizes: Sequence[int], where: Places) -> jax.Array:
    """The entries of the leaves at these places."""
    entries = _entries(sizes, where)
    first, last = int(entries[0]), int(entries[-1]) + 1
    is_run = last - first == len(entries) and list(where) == sorted(where)
    return jax.lax.slice(vector, (first,), (last,)) if is_run else vector[entries]


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
    found: dict[int, Any] = dict(parts_by_place(stacks))
    if len(found) < len(like):
        found = dict(enumerate(unstacked(vectors)[0])) | found
    return Leaves((found[i] for i in range(len(like))), like.treedef, stacks)

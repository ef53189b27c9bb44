"""Arrays of one shape as one with a leading axis, and parts of it again, cheap to compile."""

import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import jax
import numpy as np

from .grids import Grid
from .known import is_known, made_once
from .places import hidden
from .sharding import explicit_axes

Value = TypeVar("Value")

FEW = 8
"""So many slices of one stack are compiled one by one."""

SMALL = 2**14
"""Entries of an array that is copied into a stack and back at the cost of starting a kernel."""

TINY = 2**12
"""Entries of a part whose stack is copied before it is parted, at next to no cost."""

TINIER = 2**10
"""Entries of a part whose stack is made for little, and handed through a branch that may rest."""

TINIEST = 2**9
"""Entries of a part whose stack is laid out anew at no cost, row by row; see `Grid`."""

GROUP = 6
"""So many arrays make one kernel that XLA compiles once for all groups of as many."""


PIECES = 30
"""So many slices of a stack are traced once, in a function that is called for the next as many."""


def whole(batches: Sequence[jax.Array]) -> jax.Array:
    """One array of all batches, made once: XLA would make it anew, leaf by leaf, for every use.

    For the CPU, XLA compiles a part of the kernel for every array that it puts together, and
    shares no such kernel. Of a few it makes a fusion instead, and equal fusions share a kernel.
    """
    return _gathered(_joined, batches)


def _gathered(fn: Callable[..., jax.Array], arrays: Sequence[jax.Array]) -> jax.Array:
    """What `fn` makes of all arrays, on a CPU of many in groups, whose results are joined.

    That saves the compiler time and copies entries twice, so larger arrays are not grouped.
    """
    if is_known(arrays):
        return fn(*arrays)
    once = _traced_once(fn)
    if len(arrays) <= GROUP * (GROUP + FEW) or arrays[0].size > TINIER:
        return once(*arrays)
    groups = [arrays[i : i + GROUP] for i in range(0, len(arrays), GROUP)]
    joined: jax.Array = jax.lax.platform_dependent(
        groups, cpu=lambda each: _joined(*(once(*group) for group in each)),
        default=lambda each: once(*itertools.chain(*each)),
    )  # fmt: skip
    return joined


def _joined(*batches: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier(jax.lax.concatenate(batches, 0))


def _stacked(*arrays: jax.Array) -> jax.Array:
    return _joined(*(jax.lax.expand_dims(x, (0,)) for x in arrays))


_traced_once = cache(jax.jit)


def parts_of(stack: jax.Array, counts: Sequence[int]) -> list[jax.Array]:
    """A stack split along its leading axis into parts of these lengths; see `parts_of_each`."""
    (parts,) = parts_of_each([stack], counts)
    return parts


def parts_of_each(stacks: Sequence[jax.Array], counts: Sequence[int]) -> list[list[jax.Array]]:
    """Stacks of one length, split along their leading axes into parts of these lengths.

    For the CPU, XLA compiles a kernel for every slice, which for hundreds of leaves takes longer
    than all the rest. Equal slices at places that it does not know when compiling share a kernel;
    and of all stacks the parts lie at the same places, which cost as much to compile as the slices.
    A stack of tiny parts is computed first, lest each slice has a kernel for what it is made of.

    Args:
      stacks: arrays.
      counts: the lengths, which add up to that of the stacks.
    """
    lengths = tuple(counts)
    if not stacks or is_known(stacks):
        return [_split(stack, lengths) for stack in stacks]
    if len(lengths) <= FEW:
        return [_split_once(stack, lengths) for stack in stacks]
    found: list[list[jax.Array]] = jax.lax.platform_dependent(
        _hidden_places(lengths),
        *stacks,
        cpu=partial(_split_at, lengths=lengths),
        default=lambda _, *stacks: [_split_once(stack, lengths) for stack in stacks],
    )
    return found


def _split(stack: jax.Array, lengths: tuple[int, ...]) -> list[jax.Array]:
    return list(jax.lax.split(stack, lengths))


_split_once = jax.jit(_split, static_argnums=1)


def _split_at(
    places: list[jax.Array], *stacks: jax.Array, lengths: tuple[int, ...]
) -> list[list[jax.Array]]:
    tiny = [i for i, stack in enumerate(stacks) if stack.size <= TINY * len(lengths)]
    made = dict(zip(tiny, made_once(*(stacks[i] for i in tiny)), strict=True))
    pieces = list(zip(_in_pieces(places), _in_pieces(lengths), strict=True))
    return [
        [x for at, own in pieces for x in _cut(made.get(i, stack), at, own)]
        for i, stack in enumerate(stacks)
    ]


def _in_pieces(values: Sequence[Value]) -> list[Sequence[Value]]:
    return [values[i : i + PIECES] for i in range(0, len(values), PIECES)]


@partial(jax.jit, static_argnums=2)
def _cut(stack: jax.Array, places: list[jax.Array], lengths: tuple[int, ...]) -> list[jax.Array]:
    return [_slice(stack, *at) for at in zip(places, lengths, strict=True)]


def _hidden_places(lengths: tuple[int, ...]) -> list[jax.Array]:
    """Where the parts begin, which XLA does not know when it compiles."""
    return hidden(tuple(itertools.accumulate((0, *lengths[:-1]))))


def _slice(stack: jax.Array, at: jax.Array, length: int) -> jax.Array:
    origin = (np.int32(0),) * (stack.ndim - 1)
    shape = (length, *stack.shape[1:])
    return jax.lax.dynamic_slice(stack, (at, *origin), shape, allow_negative_indices=False)


def stacked(arrays: Sequence[Any]) -> jax.Array:
    """Arrays that are alike as one, with a leading axis; keys too; constants of NumPy stay such."""
    if all(type(x) is np.ndarray for x in arrays):
        constant: Any = np.stack(arrays)
        return constant
    return _gathered(_stacked, arrays)


def unstacked(*stacks: jax.Array) -> list[list[jax.Array]]:
    """The arrays of each stack; all are of one length."""
    if not stacks or is_known(stacks):
        return [_squeezed(*_split(stack, (1,) * len(stack))) for stack in stacks]
    grids = {i: Grid(len(x), x.shape[1:]) for i, x in enumerate(stacks) if _is_for_a_grid(x)}
    tiny = [stacks[i] for i in grids]
    rows = [stack for i, stack in enumerate(stacks) if i not in grids]
    cut = iter(_cut_from_grids([*grids.values()], tiny) if tiny else ())
    split = iter(_squeezed_each(parts_of_each(rows, (1,) * len(stacks[0]))))
    return [next(cut if i in grids else split) for i in range(len(stacks))]


def _is_for_a_grid(stack: jax.Array) -> bool:
    """Whether there are many parts, tiny ones, of which each device has the whole, or all."""
    is_tiny = len(stack) > FEW and 0 < stack.size <= TINIEST * len(stack)
    return is_tiny and not explicit_axes(stack)


def _cut_from_grids(grids: list[Grid], stacks: list[jax.Array]) -> list[list[jax.Array]]:
    def cut(places: list[Any], *stacks: jax.Array) -> list[list[jax.Array]]:
        each = zip(grids, stacks, places, strict=True)
        return [grid.cut(stack, *place) for grid, stack, place in each]

    def split(_: list[Any], *stacks: jax.Array) -> list[list[jax.Array]]:
        return _squeezed_each([_split_once(x, (1,) * len(x)) for x in stacks])

    places = [grid.places() for grid in grids]
    found: list[list[jax.Array]] = jax.lax.platform_dependent(
        places, *stacks, cpu=cut, default=split
    )
    return found


def _squeezed_each(stacks: list[list[jax.Array]]) -> list[list[jax.Array]]:
    return [[x for piece in _in_pieces(parts) for x in _squeezed_once(*piece)] for parts in stacks]


def _squeezed(*parts: jax.Array) -> list[jax.Array]:
    return [jax.lax.squeeze(x, (0,)) for x in parts]


_squeezed_once = jax.jit(_squeezed)

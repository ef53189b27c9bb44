"""Arrays of one shape as one with a leading axis, and parts of it again, cheap to compile."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .known import choose, is_known, made_once
from .tracing import trace_state

Value = TypeVar("Value")

FEW = 8
"""So many slices of one stack are compiled one by one."""

SMALL = 2**14
"""Entries of an array that is copied into a stack and back at the cost of starting a kernel."""

TINY = 2**10
"""Entries of a part whose stack is copied before it is parted, at next to no cost."""

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
    """What `fn` makes of all arrays, on a CPU of many in groups, whose results are joined."""
    if is_known(arrays):
        return fn(*arrays)
    once = _traced_once(fn)
    if len(arrays) <= GROUP * (GROUP + FEW):
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


_PLACES: ContextVar[list[tuple[Any, tuple[int, ...], list[jax.Array]]] | None] = ContextVar(
    "places", default=None
)
"""Of the parts that were sliced so far within a step: by the trace, and the lengths."""


@contextmanager
def sharing_places() -> Iterator[None]:
    """Within it, all stacks of as many parts are parted at the same places."""
    token = _PLACES.set([]) if _PLACES.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _PLACES.reset(token)


def _hidden_places(lengths: tuple[int, ...]) -> list[jax.Array]:
    """Where the parts begin, which XLA does not know when it compiles."""
    known, here = _PLACES.get(), trace_state()
    for trace, others, places in known or ():
        if trace == here and others == lengths:
            return places
    starts = np.array([0, *itertools.accumulate(lengths)][:-1], np.int32)
    certain = jax.lax.optimization_barrier(jnp.bool_(True))
    found: list[jax.Array] = choose(certain, lambda: list(starts), lambda: list(starts + 1))
    if known is not None:
        known.append((here, lengths, found))
    return found


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
    parts = parts_of_each(stacks, (1,) * len(stacks[0])) if stacks else []
    squeezed = _squeezed if is_known(stacks) else _squeezed_once
    return [[x for piece in _in_pieces(each) for x in squeezed(*piece)] for each in parts]


def _squeezed(*parts: jax.Array) -> list[jax.Array]:
    return [jax.lax.squeeze(x, (0,)) for x in parts]


_squeezed_once = jax.jit(_squeezed)

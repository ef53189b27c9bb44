"""One vector of the entries of many leaves, by their stacks where there are some."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from . import crowds
from .crowds import Places, parts_by_place
from .known import is_known
from .stacks import TINY, parts_of, whole
from .values import Leaves, is_missing


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
    many = [tuple(w) for size, w in alike.items() if len(w) >= crowds.MANY and 0 < size <= TINY]
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


def _entries(sizes: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """Where the entries of the leaves at these places stand in the vector of all."""
    ends = np.cumsum(sizes)
    return np.concatenate([np.arange(ends[i] - sizes[i], ends[i]) for i in places])

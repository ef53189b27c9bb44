"""Structures: entries of several leaves that are pruned together, as a channel and its bias."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ...transforms import FlowError, lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import with_stacks
from ...transforms.notation.domains import Interval, Static
from ...transforms.notation.mapping import map_kinds, map_leaves
from ...transforms.notation.paths import joined, leaf_names
from ...transforms.notation.roots import dot
from ...transforms.notation.stacks import TINY
from ...transforms.notation.values import Leaves, either, is_missing
from ...transforms.notation.vectors import split_vector

Groups = Sequence[Mapping[str, int]] | Callable[[Any], Sequence[Mapping[str, int]]]
"""One mapping of leaf names to axes per set of structures, or a function of the params that gives
them: index i along the axis of every leaf belongs to structure i."""

TargetSparsity = Annotated[float, Static(), Interval(0.0, 1.0, high_open=True)]
"""The share of structures that is pruned in the end: a Python number in [0, 1)."""


class Structures:
    """Which entries belong together.

    Attributes:
      groups: per set of structures, the axis of each leaf by its place in the tree.
      sizes: how many structures each set has.
    """

    def __init__(self, groups: Groups, tree: Leaves, label: str) -> None:
        names = {joined(path): i for i, path in enumerate(leaf_names(tree.treedef))}
        dotted = {name.replace("/", "."): i for name, i in names.items()}
        self.groups: list[dict[int, int]] = []
        taken: set[int] = set()
        for group in groups(tree.tree()) if callable(groups) else groups:
            places = {}
            for name, axis in group.items():
                place = names.get(name, dotted.get(name))
                if place is None:
                    known = ", ".join(sorted(names))
                    raise FlowError(f"{label}: groups names a leaf {name!r}; there are {known}")
                if place in taken:
                    raise FlowError(f"{label}: the leaf {name!r} is in two groups")
                taken.add(place)
                if not is_missing(tree.held[place]):
                    places[place] = axis
            if not places:
                continue
            lengths = {jnp.shape(tree.abstract(i))[axis] for i, axis in places.items()}
            if len(lengths) != 1:
                raise FlowError(f"{label}: the leaves of {dict(group)} differ in length: {lengths}")
            self.groups.append(places)
        self.sizes = [self._length(tree, places) for places in self.groups]

    @staticmethod
    def _length(tree: Leaves, places: Mapping[int, int]) -> int:
        i, axis = next(iter(places.items()))
        length: int = jnp.shape(tree.abstract(i))[axis]
        return length

    def entries(self, tree: Leaves) -> list[int]:
        """How many entries a structure of each set has."""
        sizes = [sum(tree.abstract(i).size for i in places) for places in self.groups]
        return [n // max(length, 1) for n, length in zip(sizes, self.sizes, strict=True)]

    def rows(self, tree: Leaves) -> Leaves:
        """The sets, each a tuple of its leaves, along whose first axes the structures lie."""
        structure = jax.tree.structure([0] * len(self.groups))
        if self._of_one_leaf:
            kinds = [self._axes.get(i) for i in range(len(tree))]
            found = map_kinds(_along_first, kinds, tree, most=TINY)
            return found.moved({i: k for k, i in enumerate(self._axes)}, structure)
        sets = [
            tuple(jnp.moveaxis(tree.values[i], axis, 0) for i, axis in places.items())
            for places in self.groups
        ]
        (stacked,) = with_stacks(Leaves(sets, structure))
        return stacked

    def replaced(self, tree: Leaves, rows: Leaves) -> Leaves:
        """The tree with other leaves in the sets; the reverse of `rows`."""
        if self._of_one_leaf:
            found = map_kinds(_back_along, [*self._axes.values()], rows, most=TINY)
            places = dict(enumerate(self._axes))
            return either(found.moved(places, tree.treedef), tree)
        values = list(tree.values)
        for places, parts in zip(self.groups, rows.values, strict=True):
            for (i, axis), part in zip(places.items(), parts, strict=True):
                values[i] = jnp.moveaxis(part, 0, axis)
        return Leaves(values, tree.treedef)

    @property
    def _of_one_leaf(self) -> bool:
        """Whether every set is one leaf."""
        return all(len(places) == 1 for places in self.groups)

    @property
    def _axes(self) -> dict[int, int]:
        """The axis of each leaf by its place, in the order of the sets."""
        return {i: axis for places in self.groups for i, axis in places.items()}

    def split(self, vector: jax.Array) -> Leaves:
        """A vector of one number per structure, set by set."""
        return split_vector(vector, self.sizes)


def _along_first(axis: int, leaf: jax.Array) -> tuple[jax.Array]:
    return (jnp.moveaxis(leaf, axis, 0),)


def _back_along(axis: int, row: tuple[jax.Array]) -> jax.Array:
    return jnp.moveaxis(row[0], 0, axis)


def of_sets(fn: Callable[..., Any], *rows: Leaves) -> Leaves:
    """`fn` of every set; those that are alike and many in one program."""
    return map_leaves(fn, *rows, most=TINY)


def dots(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """One inner product per structure of a set, over all its leaves."""
    parts = [dot(x, y, axis=tuple(range(1, x.ndim))) for x, y in zip(a, b, strict=True)]
    return sum(parts[1:], parts[0])


def spread(numbers: jax.Array, leaf: jax.Array) -> jax.Array:
    """One number per structure, along the first axis of a leaf."""
    return jnp.expand_dims(numbers, tuple(range(1, leaf.ndim))).astype(leaf.real.dtype)


def rows_of_matrices(params: Any) -> list[dict[str, int]]:
    """Every row of every matrix as a structure."""
    tree = Leaves.of(params)
    names = (joined(path) for path in leaf_names(tree.treedef))
    return [{n: 0} for n, leaf in zip(names, tree.values, strict=True) if jnp.ndim(leaf) == 2]


def _chosen_of(
    context: Context, first: Leaves, second: Leaves, x: Leaves, groups: Groups
) -> Leaves:
    """The first signal at the leaves of structures, the second at the others."""
    structures = Structures(groups, x, context.label)
    inside = {i for places in structures.groups for i in places}
    return either(first.only(inside.__contains__), second.only(lambda i: i not in inside))


in_structures = lift_tree(_chosen_of, "in_structures", context=True, out=1)

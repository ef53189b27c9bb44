"""Gradients of several workers as rows, of which some may be no numbers. Arrays in, arrays out."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from ...transforms import FlowError
from ...transforms.notation.roots import magnitude, norm
from ...transforms.notation.rows import mean_of_rows, sorted_rows
from ...transforms.notation.values import scalar_dtype, working


@dataclass(frozen=True)
class Rows:
    """The gradients of n workers, each over all leaves together.

    Attributes:
      leaves: arrays with the workers on the leading axis, in at least float32; 0 for workers that
        sent what is not finite.
      finite: n booleans: who sent numbers.
      treedef: the tree that the leaves are of.
      dtypes: what the leaves were given in.
    """

    leaves: list[Any]
    finite: Any
    treedef: jax.tree_util.PyTreeDef
    dtypes: list[Any]

    @classmethod
    def of(cls, label: str, stacked: Any) -> "Rows":
        """From a stacked tree; FlowError where leaves are not stacked over as many workers."""
        leaves, treedef = jax.tree.flatten(stacked)
        count_workers(label, leaves)
        wide = [working(leaf) for leaf in leaves]
        checks = [jnp.all(jnp.isfinite(x), axis=trailing(x)) for x in wide]
        finite = jnp.all(jnp.stack(checks), axis=0) if checks else jnp.ones(1, bool)
        numbers = [jnp.where(along(finite, x), x, jnp.zeros_like(x)) for x in wide]
        return cls(numbers, finite, treedef, [leaf.dtype for leaf in leaves])

    def __len__(self) -> int:
        return len(self.finite)

    @property
    def size(self) -> int:
        """The number of entries of one gradient."""
        return sum(math.prod(x.shape[1:]) for x in self.leaves)

    def scaled(self, factors: jax.Array) -> "Rows":
        """Each worker's gradient times a number."""
        given = [x * along(factors, x).astype(jnp.finfo(x.dtype).dtype) for x in self.leaves]
        return replace(self, leaves=given)

    def constant(self) -> "Rows":
        """The same rows, through which nothing is differentiated."""
        return replace(self, leaves=[jax.lax.stop_gradient(x) for x in self.leaves])

    @property
    def dtype(self) -> jnp.dtype:
        """The real dtype of numbers that go with the rows."""
        return scalar_dtype(self.leaves)

    def weighted(self, weights: jax.Array) -> list[jax.Array]:
        """Sums over the workers: by one weight for each, or by each row of a matrix of weights."""

        def total(x: jax.Array) -> jax.Array:
            fitted = weights.astype(jnp.finfo(x.dtype).dtype)
            return jnp.tensordot(fitted, x, axes=1, precision="highest")

        return [total(x) for x in self.leaves]

    def distances(self) -> jax.Array:
        """n x n distances over all leaves, infinite to workers that sent no numbers; constants."""
        parts = [
            norm(x[:, None] - x[None], tuple(range(2, x.ndim + 1)))
            for x in map(jax.lax.stop_gradient, self.leaves)
        ]
        both = self.finite[:, None] & self.finite[None]
        return jnp.where(both, joined(parts, (len(self), len(self)), self.dtype), jnp.inf)

    def distances_to(self, point: list[jax.Array]) -> jax.Array:
        """n distances to a point, infinite for workers that sent no numbers; constants."""
        pairs = zip(self.leaves, point, strict=True)
        parts = [norm(jax.lax.stop_gradient(x - y[None]), trailing(x)) for x, y in pairs]
        return jnp.where(self.finite, joined(parts, (len(self),), self.dtype), jnp.inf)

    def tree(self, leaves: list[jax.Array]) -> optax.Params:
        """Leaves without the axis of workers, in the tree and the dtypes of what was given."""
        given = [x.astype(dtype) for x, dtype in zip(leaves, self.dtypes, strict=True)]
        return jax.tree.unflatten(self.treedef, given)


def count_workers(label: str, leaves: list[jax.Array]) -> int:
    """How many there are; FlowError where leaves disagree about it."""
    counts = {x.shape[0] if jnp.ndim(x) else 0 for x in leaves}
    if len(counts) > 1 or 0 in counts:
        raise FlowError(
            f"{label}: gradients must have a leading axis of workers, as long on every leaf; the "
            f"leaves have shapes {', '.join(str(jnp.shape(x)) for x in leaves)}"
        )
    return counts.pop() if counts else 1


def require_workers(label: str, num_byzantine: int, count: int, times: int, more: int) -> None:
    """Raises FlowError where there are fewer workers than `times * num_byzantine + more`."""
    least = times * num_byzantine + more
    if count < least:
        raise FlowError(
            f"{label}: num_byzantine={num_byzantine} of {count} workers is more than it tolerates; "
            f"it needs at least {times} num_byzantine + {more} = {least} workers"
        )


def trailing(x: jax.Array) -> tuple[int, ...]:
    """All axes but that of the workers."""
    return tuple(range(1, x.ndim))


def along(flags: jax.Array, x: jax.Array) -> jax.Array:
    """One flag for each worker, shaped to go with a leaf."""
    return flags.reshape(-1, *[1] * (x.ndim - 1))


def joined(parts: list[jax.Array], shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """The norm over all leaves, from those of the leaves."""
    if not parts:
        return jnp.zeros(shape, dtype)
    return norm(jnp.stack([part.astype(dtype) for part in parts]), 0)


def relative(distances: jax.Array) -> jax.Array:
    """Distances in units of their median, so that their squares and sums are numbers."""
    middle = jnp.sort(distances, axis=None)[(distances.size - 1) // 2]
    return distances / magnitude(middle[None])[0]


def lowest(scores: jax.Array, count: int) -> jax.Array:
    """Weights of the mean of the `count` lowest scores along the last axis; ties: lowest index."""
    order = jnp.argsort(scores, axis=-1, stable=True)
    place = jnp.argsort(order, axis=-1, stable=True)
    return jnp.where(place < count, 1 / count, 0.0).astype(scores.dtype)


def by_entries(combine: Callable[[Any], Any], leaf: jax.Array) -> jax.Array:
    """A rule for real entries applied to a leaf, whose entries that are no numbers are largest."""
    if jnp.iscomplexobj(leaf):
        return jax.lax.complex(by_entries(combine, leaf.real), by_entries(combine, leaf.imag))
    return combine(jnp.where(jnp.isfinite(leaf), leaf, jnp.inf))


def each_entry(label: str, combine: Callable[[Any], Any], stacked: optax.Params) -> optax.Params:
    """A rule for the entries of the workers, applied to a stacked tree."""
    leaves, treedef = jax.tree.flatten(stacked)
    count_workers(label, leaves)
    found = [by_entries(combine, working(x)).astype(x.dtype) for x in leaves]
    return jax.tree.unflatten(treedef, found)


def closest_mean(rows: jax.Array, centre: jax.Array, count: int) -> jax.Array:
    """For each entry the mean of the `count` that are closest to a centre; ties: lowest index."""
    distance = jnp.abs(rows - centre[None])
    _, nearest = jax.lax.sort((distance, rows), dimension=0, is_stable=True, num_keys=1)
    return mean_of_rows(nearest[:count])


def lower_median(rows: jax.Array) -> jax.Array:
    """For each entry the middle one, of an even number the lower."""
    return sorted_rows(rows)[(len(rows) - 1) // 2]

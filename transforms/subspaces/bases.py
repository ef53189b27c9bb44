"""What a leaf's subspace is: bases, coordinates, or all or nothing of it.

Whatever it is, `project` gives the coordinates of a leaf in it, `unproject` the leaf of such
coordinates, and `residual` what the subspace leaves out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..notation.bounds import Bound, always
from ..notation.checks import checked
from ..notation.functions import lift
from ..notation.roots import saturated, summable, summable_share
from ..notation.sharding import replicated
from ..notation.signal import Signal


@partial(jax.tree_util.register_dataclass, data_fields=["left", "right"], meta_fields=[])
@dataclass(frozen=True)
class Basis:
    """Orthonormal bases of the column space (left) and row space (right) of a matrix leaf.

    Attributes:
      left: (m, r) with orthonormal columns, or None if the columns are not projected.
      right: (r, n) with orthonormal rows, or None if the rows are not projected.
    """

    left: Any
    right: Any

    def project(self, matrix: jax.Array) -> jax.Array:
        """left^H M right^H, sides that exist only; bounded, where that is no number."""
        matrix = replicated(matrix)
        if self.left is not None:
            share = summable_share(len(matrix))
            matrix = ((share * self.left).conj().T @ matrix) / share
        if self.right is not None:
            share = summable_share(matrix.shape[1])
            matrix = (matrix @ (share * self.right).conj().T) / share
        return summable(matrix, 1)

    def unproject(self, low: jax.Array) -> jax.Array:
        """left L right, sides that exist only."""
        return self.product(summable(low, low.size))

    def product(self, low: jax.Array) -> jax.Array:
        """The same of coordinates of which no sum overflows."""
        if self.left is not None:
            low = self.left @ low
        return low if self.right is None else low @ self.right

    def residual(self, matrix: jax.Array) -> jax.Array:
        """What the basis leaves out; exactly nothing if it spans the whole space."""
        if all(side is None or side.shape[0] == side.shape[1] for side in (self.left, self.right)):
            return jnp.zeros_like(matrix)
        return saturated(replicated(matrix) - self.unproject(self.project(matrix)))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["indices", "weights"],
    meta_fields=["axis", "shape"],
)
@dataclass(frozen=True)
class Coordinates:
    """Some rows, columns or entries of a leaf.

    Attributes:
      indices: which.
      weights: factors of each of them, by which an index may be there more than once; None: each
        is there once, with the factor 1.
      axis: 0 for rows, 1 for columns, None for entries of the flattened leaf.
      shape: of the leaf.
    """

    indices: jax.Array
    weights: jax.Array | None
    axis: int | None
    shape: tuple[int, ...]

    def project(self, matrix: jax.Array) -> jax.Array:
        """The chosen entries, times their weights."""
        matrix = replicated(matrix)
        taken = jnp.take(matrix, self.indices, axis=self.axis, unique_indices=self.weights is None)
        return self._weighted(taken)

    def unproject(self, low: jax.Array) -> jax.Array:
        """The chosen entries, times their weights, at their places, zeros elsewhere."""
        if self.weights is None:
            return self._with(jnp.zeros(self.shape, low.dtype), low)
        empty = jnp.zeros(self.shape, low.dtype)
        return empty.at[self._places].add(self._weighted(low))

    def residual(self, matrix: jax.Array) -> jax.Array:
        """The other entries, with zeros at the places of the chosen ones."""
        if self.weights is None:
            return self._with(replicated(matrix), 0)
        return replicated(matrix) - self.unproject(self.project(matrix))

    @property
    def _places(self) -> Any:
        return (slice(None),) * (self.axis or 0) + (self.indices,)

    def _weighted(self, low: jax.Array) -> jax.Array:
        if self.weights is None:
            return low
        across = [1] * low.ndim
        across[self.axis or 0] = -1
        return self.weights.reshape(across).astype(low.dtype) * low

    def _with(self, matrix: jax.Array, values: ArrayLike) -> jax.Array:
        if self.axis is None:
            flat = matrix.reshape(-1).at[self.indices].set(values, unique_indices=True)
            return flat.reshape(self.shape)
        return matrix.at[self._places].set(values, unique_indices=True)


@partial(jax.tree_util.register_dataclass, data_fields=["active"], meta_fields=[])
@dataclass(frozen=True)
class Switch:
    """All of a leaf, or nothing.

    Attributes:
      active: a boolean.
    """

    active: jax.Array

    def project(self, leaf: jax.Array) -> jax.Array:
        """The leaf if it is active, zeros otherwise."""
        return jnp.where(self.active, leaf, 0)

    unproject = project

    def residual(self, leaf: jax.Array) -> jax.Array:
        """The leaf if it is not active, zeros otherwise."""
        return jnp.where(self.active, 0, leaf)


@partial(jax.tree_util.register_dataclass, data_fields=["factors"], meta_fields=["axes"])
@dataclass(frozen=True)
class Tucker:
    """Bases of the spaces along some axes of a leaf of any rank.

    Attributes:
      factors: (length of the axis, r), of each axis.
      axes: which.
    """

    factors: tuple[Any, ...]
    axes: tuple[int, ...]

    def project(self, leaf: jax.Array) -> jax.Array:
        """The core: each of the axes multiplied by its factor's adjoint."""
        leaf = summable(replicated(leaf), leaf.size)
        for factor, axis in zip(self.factors, self.axes, strict=True):
            leaf = along(leaf, factor.conj().T, axis)
        return leaf

    def unproject(self, low: jax.Array) -> jax.Array:
        """Each of the axes multiplied by its factor."""
        low = summable(low, low.size)
        for factor, axis in zip(self.factors, self.axes, strict=True):
            low = along(low, factor, axis)
        return low

    def residual(self, leaf: jax.Array) -> jax.Array:
        """What the bases leave out; exactly nothing if they span the whole spaces."""
        if all(factor.shape[0] == factor.shape[1] for factor in self.factors):
            return jnp.zeros_like(leaf)
        return saturated(replicated(leaf) - self.unproject(self.project(leaf)))


def along(leaf: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    """The leaf with an axis multiplied by a matrix, from the left."""
    return jnp.moveaxis(jnp.tensordot(matrix, leaf, axes=(1, axis)), 0, axis)


def _projected(basis: Any, leaf: jax.Array) -> jax.Array:
    low: jax.Array = basis.project(leaf)
    return low if isinstance(basis, Basis) else saturated(low)


def _unprojected(basis: Any, low: jax.Array) -> jax.Array:
    leaf: jax.Array = saturated(basis.unproject(low))
    return leaf


def _bound_of_product(look: Callable[[Any], Bound], basis: Signal, low: Signal) -> Bound:
    return Bound(finite=True, moderate=look(basis).moderate and look(low).moderate)


def _product(basis: Any, low: jax.Array) -> jax.Array:
    leaf: jax.Array = basis.product(low) if isinstance(basis, Basis) else basis.unproject(low)
    return leaf


_projected.bound = always(Bound(finite=True))  # type: ignore[attr-defined]
_unprojected.bound = _bound_of_product  # type: ignore[attr-defined]
_unprojected.where_moderate = _product  # type: ignore[attr-defined]


@checked()
def project(basis: Signal, g: Signal) -> Signal:
    """The coordinates of each leaf in its subspace.

    A function of signals.
    """
    return lift(_projected, "project")(basis, g)


@checked()
def unproject(basis: Signal, low: Signal) -> Signal:
    """The leaves with these coordinates.

    A function of signals.
    """
    return lift(_unprojected, "unproject")(basis, low)


@checked()
def residual(basis: Signal, g: Signal) -> Signal:
    """What each subspace leaves out of its leaf.

    A function of signals.
    """
    return lift(lambda b, x: b.residual(x), "residual")(basis, g)

"""Subspaces of matrix gradients, and running a transformation inside one.

A transformation such as `svd_basis` turns every matrix into a subspace: a low-rank basis, some
rows, columns or entries, or the whole leaf or nothing of it. Whatever it is, `project` gives the
coordinates of a matrix in it, `unproject` the matrix of such coordinates, and `residual` what the
subspace leaves out. `low_rank` runs any transformation on the coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ..control.periods import every, reset_when
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.compose import named
from ..notation.errors import FlowError
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Axis, Key, Mask, Number, Period, Sampler, Share
from ..notation.parts import merge, split
from ..notation.selection import matrices
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.values import Leaves
from ..trees.random import draw_leaves, random_key

OneSide = Literal["std", "reverse_std", "left", "right"]
Side = OneSide | Literal["full"]
BlockOrder = Literal["random", "ascending", "descending", "mirror"]
AtRefresh = Literal["keep", "reset"]
Rank = int | Callable[[int], int]
"""A number of vectors, or a function from the length of the projected side to that number."""


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

    def project(self, matrix: Any) -> Any:
        """left^H M right^H, sides that exist only."""
        matrix = replicated(matrix)
        if self.left is not None:
            matrix = self.left.conj().T @ matrix
        return matrix if self.right is None else matrix @ self.right.conj().T

    def unproject(self, low: Any) -> Any:
        """left L right, sides that exist only."""
        if self.left is not None:
            low = self.left @ low
        return low if self.right is None else low @ self.right

    def residual(self, matrix: Any) -> Any:
        """What the basis leaves out; exactly nothing if it spans the whole space."""
        if all(side is None or side.shape[0] == side.shape[1] for side in (self.left, self.right)):
            return jnp.zeros_like(matrix)
        return replicated(matrix) - self.unproject(self.project(matrix))


@partial(jax.tree_util.register_dataclass, data_fields=["indices"], meta_fields=["axis", "shape"])
@dataclass(frozen=True)
class Coordinates:
    """Some rows, columns or entries of a leaf.

    Attributes:
      indices: which.
      axis: 0 for rows, 1 for columns, None for entries of the flattened leaf.
      shape: of the leaf.
    """

    indices: Any
    axis: int | None
    shape: tuple[int, ...]

    def project(self, matrix: Any) -> Any:
        """The chosen entries."""
        return jnp.take(replicated(matrix), self.indices, axis=self.axis, unique_indices=True)

    def unproject(self, low: Any) -> Any:
        """The chosen entries at their places, zeros elsewhere."""
        return self._with(jnp.zeros(self.shape, low.dtype), low)

    def residual(self, matrix: Any) -> Any:
        """The other entries, with zeros at the places of the chosen ones."""
        return self._with(replicated(matrix), 0)

    def _with(self, matrix: Any, values: Any) -> Any:
        if self.axis is None:
            flat = matrix.reshape(-1).at[self.indices].set(values, unique_indices=True)
            return flat.reshape(self.shape)
        places = (slice(None),) * self.axis + (self.indices,)
        return matrix.at[places].set(values, unique_indices=True)


@partial(jax.tree_util.register_dataclass, data_fields=["active"], meta_fields=[])
@dataclass(frozen=True)
class Switch:
    """All of a leaf, or nothing.

    Attributes:
      active: a boolean.
    """

    active: Any

    def project(self, leaf: Any) -> Any:
        """The leaf if it is active, zeros otherwise."""
        return jnp.where(self.active, leaf, 0)

    unproject = project

    def residual(self, leaf: Any) -> Any:
        """The leaf if it is not active, zeros otherwise."""
        return jnp.where(self.active, 0, leaf)


def project(basis: Signal, g: Signal) -> Signal:
    """The coordinates of each leaf in its subspace.

    A function of signals.
    """
    return lift(lambda b, x: b.project(x), "project")(basis, g)


def unproject(basis: Signal, low: Signal) -> Signal:
    """The leaves with these coordinates.

    A function of signals.
    """
    return lift(lambda b, x: b.unproject(x), "unproject")(basis, low)


def residual(basis: Signal, g: Signal) -> Signal:
    """What each subspace leaves out of its leaf.

    A function of signals.
    """
    return lift(lambda b, x: b.residual(x), "residual")(basis, g)


@transformation()
def svd_basis(rank: Rank, projection: Side = "std") -> Flow:
    """The leading singular vectors of each matrix that comes in.

    A transformation to send signals through.

    Signs are fixed: the entry of largest magnitude in each vector is positive.

    Args:
      rank: how many vectors, at most the smaller dimension; a number, or a function of the length
        of the projected side.
      projection: "std" projects the longer side away (rows kept where m >= n), "reverse_std" the
        other, "left" and "right" force a side, "full" uses both.

    References:
      Zhao et al. 2024, GaLore (arXiv 2403.03507).
    """
    return flow(lambda g: lift(lambda x: _leading(x, rank, projection), "svd_basis")(g))


def _leading(matrix: Any, rank: Rank, projection: str) -> Basis:
    left, right = _ranks(matrix.shape, rank, projection)
    u, _, vt = jnp.linalg.svd(replicated(matrix), full_matrices=False)
    return Basis(
        None if left is None else _signed(u[:, :left].T).T,
        None if right is None else _signed(vt[:right]),
    )


def _ranks(shape: Any, rank: Rank, projection: str) -> tuple[int | None, int | None]:
    """The numbers of left and right vectors, None for a side that is not projected."""
    m, n = shape
    right = {"std": m >= n, "reverse_std": m < n, "left": False, "right": True, "full": True}
    left = projection == "full" or not right[projection]
    sides = ((left, m), (right[projection], n))
    if not callable(rank):
        return tuple(min(rank, m, n) if used else None for used, _ in sides)  # type: ignore
    if projection == "full":
        sides = ((True, min(m, n)),) * 2
    return tuple(min(rank(size), m, n) if used else None for used, size in sides)  # type: ignore


def _signed(rows: Any) -> Any:
    """Every row with the sign (complex: phase) that makes its largest entry positive."""
    largest = jnp.take_along_axis(rows, jnp.argmax(jnp.abs(rows), axis=1, keepdims=True), axis=1)
    return rows * jnp.where(largest == 0, 1, jnp.sign(largest)).conj()


@transformation()
def random_basis(
    rank: Rank, projection: OneSide = "std", key: Key = 0, sampler: Sampler | None = None
) -> Flow:
    """A random orthonormal basis for each matrix that comes in, whatever its entries.

    A transformation to send signals through.

    Args:
      rank, projection: see `svd_basis`; not "full".
      key: seed or key.
      sampler: `(key, count, params) -> tree` of bases in place of random ones: (m, r) where columns
        are projected, (r, n) where rows are.
    """

    def draw(fresh: Any, matrix: Any) -> Any:
        left, right = _ranks(matrix.shape, rank, projection)
        size = matrix.shape[0] if right is None else matrix.shape[1]
        vectors = _orthonormal(fresh, size, left or right or 0, matrix.dtype)
        return vectors if right is None else vectors.T

    def basis(matrix: Any, vectors: Any) -> Basis:
        _, right = _ranks(matrix.shape, rank, projection)
        return Basis(vectors, None) if right is None else Basis(None, vectors)

    def step(g: Signal) -> Signal:
        return lift(basis, "random_basis")(g, draw_leaves(g, key, draw, sampler, "orthonormal"))

    return flow(step)


def _orthonormal(key: Any, size: int, count: int, dtype: Any) -> Any:
    q, r = jnp.linalg.qr(jax.random.normal(key, (size, count), dtype))
    return q * jnp.sign(jnp.diagonal(r))


@transformation()
def random_coordinates(
    density: Share, axis: Axis | None = 1, key: Key = 0, sampler: Sampler | None = None
) -> Flow:
    """A random share of the rows, columns or entries of each leaf that comes in.

    A transformation to send signals through.

    Args:
      density: the share, rounded down to a whole number.
      axis: 0 for rows, 1 for columns, None for entries.
      key: seed or key.
      sampler: `(key, count, params) -> tree` of index arrays in place of random ones.
    """

    def draw(fresh: Any, leaf: Any) -> Any:
        size = leaf.size if axis is None else leaf.shape[axis]
        return jax.random.permutation(fresh, size)[: int(size * density)].astype(jnp.int32)

    def step(g: Signal) -> Signal:
        indices = draw_leaves(g, key, draw, sampler, "indices")
        return lift(lambda x, i: Coordinates(i, axis, x.shape), "coordinates")(g, indices)

    return flow(step)


@transformation()
def active_leaves(density: Share, order: BlockOrder = "random", key: Key = 0) -> Flow:
    """Switches a share of the leaves on and the others off.

    A transformation to send signals through.

    With n leaves, q = round(density n) of them are on: a random choice; or, in turn, the next q in
    "ascending" or "descending" order; or ("mirror") the next q / 2 from either end.

    Args:
      density: the share.
      order: one of the above.
      key: seed or key of the random choice.

    Raises:
      FlowError: in `init`, for "mirror" with an odd q.

    References:
      Zmushko et al. 2024, FRUGAL (arXiv 2411.07837), the authors' code.
    """

    def active(tree: Leaves) -> int:
        n = len(tree.present())
        q = round(density * n)
        if order == "mirror" and q % 2:
            raise FlowError(f"order='mirror' needs an even number of active leaves, not {q} of {n}")
        return q

    def switch(tree: Leaves, turn: Any, fresh: Any = None) -> Leaves:
        places = iter(_places(order, len(tree.present()), active(tree), turn, fresh))
        return tree.map(lambda _: Switch(next(places)))

    def shape(_: Any, tree: Leaves, *rest: Any) -> Leaves:
        active(tree)
        return tree.map(lambda _: Switch(jax.ShapeDtypeStruct((), jnp.bool_)))

    def step(g: Signal) -> Signal:
        switched = lift_tree(switch, "active_leaves", out=shape)
        turn = step_count() - 1
        return switched(g, turn, random_key(key)) if order == "random" else switched(g, turn)

    return flow(step)


def _places(order: str, n: int, q: int, turn: Any, key: Any) -> Any:
    """Whether each of n leaves is among the q of this turn."""
    index = jnp.arange(n)
    if order == "random":
        return jax.random.permutation(key, n) < q
    if order == "mirror":
        half = max(n // 2, 1)
        nearest = jnp.minimum(index, n - 1 - index)
        return ((nearest - turn * (q // 2)) % half < q // 2) & (nearest < half)
    forward = index if order == "ascending" else n - 1 - index
    return (forward - turn * q) % max(n, 1) < q


@transformation()
def low_rank(
    inner: optax.GradientTransformation,
    basis: optax.GradientTransformation,
    update_interval: Period = 200,
    scale: Number = 1.0,
    project: Mask = matrices,
    residual: optax.GradientTransformation | None = None,
    at_refresh: AtRefresh = "keep",
) -> Flow:
    """Runs a transformation on the coordinates of gradients in a subspace.

    A transformation to send signals through.

        P_t = basis(g_t)  at t = 1, k + 1, 2k + 1, ...,  P_{t-1} in between
        u_t = scale (P_t inner(P_t^T g_t) + residual(g_t - P_t P_t^T g_t))

    Leaves that are not projected go through `inner` as they are, without the scale.

    Args:
      inner: any transformation; its state has the shapes of the coordinates.
      basis: what finds the subspaces: `svd_basis`, `random_basis`, `random_coordinates`,
        `active_leaves`.
      update_interval: k, steps between two subspaces.
      scale: factor of the projected leaves' updates.
      project: the leaves to be projected: a predicate of a leaf, a tree of booleans, or a function
        of the params; default the matrices.
      residual: what is done with the part outside the subspace; None drops it.
      at_refresh: what becomes of the inner state when the subspace changes: "keep" re-reads it in
        the new coordinates, "reset" starts anew, step count included (see `reset_when`).
    """

    def step(g: Signal) -> Signal:
        chosen, others = split(g, project)
        subspace = chosen >> named("basis", every(update_interval, basis))
        coordinates = lift(lambda b, x: b.project(x), "project")(subspace, chosen)
        if at_refresh == "reset":
            due = (step_count() - 1) % update_interval == 0
            low = coordinates >> reset_when(due, inner, restart_count=True, name="low")
        else:
            low = coordinates >> named("low", inner)
        u = unproject(subspace, low)
        if residual is not None:
            left_out = lift(lambda b, x: b.residual(x), "residual")(subspace, chosen)
            u = u + (left_out >> residual)
        return merge(scale * u, others >> named("rest", inner))

    return flow(step)

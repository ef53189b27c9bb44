"""Subspaces spanned by singular vectors, or by random ones."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation import draws, linalg
from ..notation.bounds import Bound, always
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.errors import FlowError
from ..notation.functions import lift
from ..notation.hyperparameters import Key, Period, Sampler
from ..notation.roots import summable
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..trees.random import draw_leaves
from .bases import Basis

OneSide = Literal["std", "reverse_std", "left", "right"]
Side = OneSide | Literal["full"]
Rank = int | Callable[[int], int]
"""A number of vectors, or a function from the length of the projected side to that number."""


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

    def basis(x: jax.Array) -> Basis:
        return _leading(x, rank, projection)

    basis.bound = always(Bound(finite=True, moderate=True))  # type: ignore[attr-defined]
    return flow(lambda g: lift(basis, "svd_basis")(g))


def _leading(matrix: jax.Array, rank: Rank, projection: str) -> Basis:
    left, right = _ranks(matrix.shape, rank, projection)

    @linalg.one_by_one
    def vectors(matrix: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
        """Those that are kept, so that of the others there is never a stack."""
        u, _, vt = linalg.svd(matrix, leading=max(left or 0, right or 0))
        return (
            None if left is None else signed_vectors(u[..., :left], -2),
            None if right is None else signed_vectors(vt[..., :right, :]),
        )

    return Basis(*vectors(replicated(matrix)))


Entry = tuple[jax.Array, jax.Array]
"""The magnitude of a number, and the number."""


def _ranks(shape: tuple[int, ...], rank: Rank, projection: str) -> tuple[int | None, int | None]:
    """The numbers of left and right vectors, None for a side that is not projected."""
    m, n = shape
    right = {"std": m >= n, "reverse_std": m < n, "left": False, "right": True, "full": True}
    left = projection == "full" or not right[projection]
    sides = ((left, m), (right[projection], n))
    if not callable(rank):
        if rank > min(m, n):
            raise _too_high(rank, shape)
        return tuple(rank if used else None for used, _ in sides)  # type: ignore
    if projection == "full":
        sides = ((True, min(m, n)),) * 2
    return tuple(min(rank(size), m, n) if used else None for used, size in sides)  # type: ignore


def signed_vectors(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """Every vector along an axis with the sign or phase that makes its largest entry positive."""
    if jnp.iscomplexobj(vectors):
        where = jnp.argmax(jnp.abs(vectors), axis=axis, keepdims=True)
        largest = jnp.take_along_axis(vectors, where, axis=axis)
        return vectors * jnp.where(largest == 0, 1, jnp.sign(largest)).conj()
    entries = jax.lax.stop_gradient(vectors)
    start = (jnp.zeros((), vectors.dtype),) * 2
    _, largest = jax.lax.reduce((jnp.abs(entries), entries), start, _larger, (axis % vectors.ndim,))
    return jnp.where(jnp.expand_dims(largest, axis) < 0, -vectors, vectors)


def _larger(a: Entry, b: Entry) -> Entry:
    """The entry of larger magnitude; of equal ones either, but the same of the opposite vector."""
    is_first = jax.lax.ge(a[0], b[0])
    return jax.lax.select(is_first, a[0], b[0]), jax.lax.select(is_first, a[1], b[1])


@transformation()
def sketched_basis(
    rank: Rank, projection: OneSide = "std", key: Key = 0, sampler: Sampler | None = None
) -> Flow:
    """Approximate leading singular vectors of each matrix that comes in, from a random sketch.

    A transformation to send signals through.

        Q = orthonormal columns of g Omega,   P = the right singular vectors of Q^T g

    on the right; on the left the same of g^T. Signs are those of `svd_basis`.

    Args:
      rank, projection: see `svd_basis`; not "full".
      key: seed or key of Omega, standard normal.
      sampler: `(key, count, params) -> tree` of (n, rank) matrices Omega, (m, rank) on the left, in
        place of random ones; count is 0 at the first step.

    References:
      Halko, Martinsson & Tropp 2011, Finding Structure with Randomness (arXiv 0909.4061).
    """

    def draw(fresh: jax.Array, matrix: jax.Array) -> jax.Array:
        size, count, _ = _one_side(matrix.shape, rank, projection)
        return draws.normal(fresh, (size, count), matrix.dtype)

    def basis(matrix: jax.Array, omega: jax.Array) -> Basis:
        _, _, is_right = _one_side(matrix.shape, rank, projection)
        return one_sided(sketched(matrix if is_right else matrix.T, omega), is_right)

    def step(g: Signal) -> Signal:
        return lift(basis, "sketched_basis")(g, draw_leaves(g, key, draw, sampler, "omega"))

    return flow(step)


def sketched(matrix: jax.Array, omega: jax.Array) -> jax.Array:
    """Rows that nearly span the leading right singular vectors of a matrix.

    A function of arrays.

    Args:
      matrix: (m, n).
      omega: (n, rank), what it is multiplied by; the rows span what these columns point at.
    """
    matrix = summable(replicated(matrix), matrix.size)
    q, _ = linalg.qr(matrix @ omega)
    _, _, rows = linalg.svd(q.conj().T @ matrix)
    return signed_vectors(rows)


def leading_rows(matrix: jax.Array, rank: int) -> jax.Array:
    """The leading right singular vectors of a matrix, as rows.

    A function of arrays.

    Raises:
      FlowError: for a rank above the smaller side.
    """
    if rank > min(matrix.shape):
        raise _too_high(rank, matrix.shape)
    return signed_vectors(linalg.svd(replicated(matrix), leading=rank)[2])


def oriented(matrix: jax.Array) -> jax.Array:
    """The matrix, or its transposed if it has more columns than rows."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _too_high(rank: int, shape: tuple[int, ...]) -> FlowError:
    return FlowError(f"rank={rank} exceeds the smaller side of a leaf of shape {tuple(shape)}")


def one_sided(rows: jax.Array, is_right: bool) -> Basis:
    """The basis of these rows on the right, or of their transposed on the left."""
    return Basis(None, rows) if is_right else Basis(rows.T, None)


def _one_side(shape: tuple[int, ...], rank: Rank, projection: str) -> tuple[int, int, bool]:
    """The length of the projected side, how many vectors, and whether it is the right one."""
    left, right = _ranks(shape, rank, projection)
    return (shape[0], left or 0, False) if right is None else (shape[1], right, True)


Kind = Literal["orthonormal", "gaussian", "hadamard"]


@transformation()
def random_basis(
    rank: Rank,
    projection: OneSide = "std",
    kind: Kind = "orthonormal",
    key: Key = 0,
    sampler: Sampler | None = None,
    update_interval: Period = 1,
) -> Flow:
    """Random vectors for each matrix that comes in, whatever its entries.

    A transformation to send signals through.

    Args:
      rank, projection: see `svd_basis`; not "full".
      kind: "orthonormal"; "gaussian", of variance 1 / rank; "hadamard", some rows of a Hadamard
        matrix of the next power of two, with random signs: orthonormal if the side has that length.
      key: seed or key.
      sampler: `(key, count, params) -> tree` of bases in place of random ones: (m, r) where columns
        are projected, (r, n) where rows are; count is 0 at the first step.
      update_interval: for how many steps they stay the same. They are drawn again at each of these
        and not in the state, as they are behind `every`.
    """
    vectors = {"orthonormal": _orthonormal, "gaussian": _gaussian, "hadamard": _hadamard}[kind]

    def draw(fresh: jax.Array, matrix: jax.Array) -> jax.Array:
        size, count, is_right = _one_side(matrix.shape, rank, projection)
        columns = vectors(fresh, size, count, matrix.dtype)
        return columns.T if is_right else columns

    def basis(matrix: jax.Array, given: jax.Array) -> Basis:
        _, _, is_right = _one_side(matrix.shape, rank, projection)
        return Basis(None, given) if is_right else Basis(given, None)

    def step(g: Signal) -> Signal:
        return lift(basis, "random_basis")(
            g, draw_leaves(g, key, draw, sampler, kind, update_interval)
        )

    return flow(step)


def _orthonormal(key: jax.Array, size: int, count: int, dtype: DTypeLike) -> jax.Array:
    q, r = linalg.qr(draws.normal(key, (size, count), dtype))
    return q * jnp.sign(jnp.diagonal(r))


def _gaussian(key: jax.Array, size: int, count: int, dtype: DTypeLike) -> jax.Array:
    return draws.normal(key, (size, count), dtype) / max(count, 1) ** 0.5


def _hadamard(key: jax.Array, size: int, count: int, dtype: DTypeLike) -> jax.Array:
    length = 1 << max(size - 1, 0).bit_length()
    of_signs, of_rows = draws.split(key)
    chosen = draws.permutation(of_rows, length)[:count].astype(jnp.uint32)
    bits = jnp.arange(size, dtype=jnp.uint32)[:, None] & chosen[None]
    entries = 1 - 2 * (jax.lax.population_count(bits) & 1).astype(jnp.int32)
    signs = draws.rademacher(of_signs, (size, 1), jnp.int32)
    return (signs * entries).astype(dtype) / length**0.5

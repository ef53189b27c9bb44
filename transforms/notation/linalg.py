"""Dense factorisations that cannot stand still, however few threads there are.

On a CPU, jaxlib from 0.10 on spreads a batch of decompositions or triangular systems over XLA's
pool of threads, and waits for it in a thread of that pool. XLA runs what
is independent at a time: as soon as there are as many of these waits as threads, nobody is left to
do the work, and the program stands still. The functions here decompose one matrix after the other
there, also under `jax.vmap`, so that nothing waits, and XLA spreads what is independent by itself.
On accelerators a batch is one call.
"""

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap, sequential_vmap

from .known import each, is_known
from .members import all_axes_of, all_varying
from .roots import magnitude, power_of_two_below, root, summable_share

LONG = 1.5
"""Sides of a matrix so far apart that its triangular factor is worth making first."""

Value = TypeVar("Value")
Trans = Literal["N", "T", "C"]


def one_by_one(solve: Callable[..., Value]) -> Callable[..., Value]:
    """Makes a function of batches of matrices do one matrix after the other on a CPU.

    Part of the notation.

    More than a factorisation in one such function is done while the matrix is in the cache.

    Args:
      solve: function of arrays (..., n, m) that treats every matrix on its own.
    """

    def looped(*batches: jax.Array) -> Value:
        shape = jnp.broadcast_shapes(*(x.shape[:-2] for x in batches))
        if prod(shape) == 1:
            return solve(*batches)
        rows = [jnp.broadcast_to(x, (*shape, *x.shape[-2:])) for x in batches]
        flat = [x.reshape(-1, *x.shape[-2:]) for x in rows]
        done = each(lambda matrices: solve(*matrices), flat, ())
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), done)

    # JAX cannot differentiate what has a rule for vmap: the derivative takes the loop itself.
    in_turn = jax.custom_jvp(sequential_vmap(looped))
    in_turn.defjvp(lambda primals, tangents: jax.jvp(looped, primals, tangents))

    @custom_vmap
    def alone(*batches: jax.Array) -> Value:
        return solve(*batches)

    @alone.def_vmap
    def many(size: int, is_batched: Sequence[bool], *batches: jax.Array) -> tuple[Value, Any]:
        pairs = zip(batches, is_batched, strict=True)
        rows = [x if moves else jnp.broadcast_to(x, (size, *x.shape)) for x, moves in pairs]
        done = solved(*rows)
        return done, jax.tree.map(lambda _: True, done)

    single = jax.custom_jvp(alone)
    single.defjvp(lambda primals, tangents: jax.jvp(solve, primals, tangents))

    def solved(*batches: jax.Array) -> Value:
        shape = jnp.broadcast_shapes(*(x.shape[:-2] for x in batches))
        if any(x.size == 0 for x in batches):
            return solve(*batches)
        if is_known(batches):
            return (looped if jax.default_backend() == "cpu" else solve)(*batches)
        if prod(shape) == 1:  # nothing waits: no program of its own for every platform
            return single(*map(_of_jax, batches))
        return jax.lax.platform_dependent(*batches, cpu=in_turn, default=solve)

    return solved


def _of_jax(matrices: jax.Array) -> jax.Array:
    """Under vmap NumPy's arrays reach a function with a rule as they are, and jit refuses them."""
    return jnp.array(matrices, copy=True)


def eigh(matrices: jax.Array, symmetrize_input: bool = True) -> tuple[jax.Array, jax.Array]:
    """`jnp.linalg.eigh`.

    A function of arrays.
    """
    return (_eigh if symmetrize_input else _eigh_of_lower)(matrices)


def qr(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`jnp.linalg.qr`.

    A function of arrays.
    """
    return _qr(matrices)


def svd(
    matrices: jax.Array, full_matrices: bool = False, leading: int | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`jnp.linalg.svd`, by default without the vectors that have no singular value.

    A function of arrays.

    Args:
      matrices: (..., m, n).
      full_matrices: whether there are vectors without a singular value.
      leading: how many vectors of either side are wanted, those of the largest values; None: all.
    """
    return (_full_svd if full_matrices else _svd_of(leading))(matrices)


def singular_values(matrices: jax.Array) -> jax.Array:
    """`jnp.linalg.svdvals`.

    A function of arrays.
    """
    return _singular_values(matrices)


def solve(matrices: jax.Array, right: jax.Array) -> jax.Array:
    """`jnp.linalg.solve`; a right side of one dimension is a vector.

    A function of arrays.
    """
    if right.ndim == 1:
        return _solve(matrices, right[:, None])[..., 0]
    return _solve(matrices, right)


def inv(matrices: jax.Array) -> jax.Array:
    """`jnp.linalg.inv`.

    A function of arrays.
    """
    return _inv(matrices)


def cholesky(matrices: jax.Array) -> jax.Array:
    """`jnp.linalg.cholesky`: the lower factors, NaN where a matrix is not definite.

    There the derivative is 0.

    A function of arrays.
    """
    return _lower_factor(matrices)[0]


def cho_solve(factors: jax.Array, right: jax.Array) -> jax.Array:
    """`jax.scipy.linalg.cho_solve` by lower factors; a right side of one dimension is a vector.

    A function of arrays.
    """
    if right.ndim == 1:
        return _cho_solve(factors, right[:, None])[..., 0]
    return _cho_solve(factors, right)


def solve_triangular(
    matrices: jax.Array, right: jax.Array, *, lower: bool = False, trans: Trans = "N"
) -> jax.Array:
    """`jax.scipy.linalg.solve_triangular`; a right side of one dimension is a vector.

    A function of arrays.

    Args:
      matrices: (..., n, n), of which one triangle is read.
      right: (..., n, m), or (n,).
      lower: whether that is the lower one.
      trans: "N", or "T" or "C" for the systems of the transposes, or conjugate transposes.
    """
    solve = _triangular(lower, trans)
    if right.ndim == 1:
        return solve(matrices, right[:, None])[..., 0]
    return solve(matrices, right)


def solve_normal(rows: jax.Array, below: jax.Array, right: jax.Array) -> jax.Array:
    """x in (A^H A + R^H R) x = B by triangular factors, in one loop over the matrices.

    A function of arrays.

    Args:
      rows: A, (..., m, n).
      below: R, (..., n, n), by which both together have rank n.
      right: B, (..., n, k).
    """
    return _solve_normal(rows, below, right)


def expm(matrices: jax.Array) -> jax.Array:
    """`jax.scipy.linalg.expm`.

    A function of arrays.
    """
    return _expm(matrices)


Factors = TypeVar("Factors", bound=tuple[jax.Array, ...])


def _with_derivative(
    solve: Callable[[jax.Array], Factors],
    is_regular: Callable[..., jax.Array],
    example: Callable[[int, int], jax.Array],
    linear: int,
    degree: float = 1,
) -> Callable[[jax.Array], Factors]:
    """The factorisation, whose derivative is 0 where it has none, as at a matrix of zeros.

    It is taken at the matrix over its size, as differences of squared singular values may be below
    the format.

    Args:
      solve: gives the factors.
      is_regular: whether there is a derivative, by the factors.
      example: the entries of a matrix of some size at which there is one.
      linear: which of the factors grows with the matrix; the others are bases.
      degree: the power of the matrix's size with which it grows.
    """

    @jax.custom_jvp
    def solved(matrices: jax.Array) -> Factors:
        return solve(matrices)

    @solved.defjvp
    def rule(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[Factors, Factors]:
        x, dx = primals[0], tangents[0]
        found = solve(x)
        regular = is_regular(*found)

        def where(a: jax.Array, other: jax.Array) -> jax.Array:
            shape = (*regular.shape, *(1,) * (a.ndim - regular.ndim))
            return jnp.where(regular.reshape(shape), a, other)

        # not only what comes out: an infinite factor would meet a cotangent of 0
        stand_in = jnp.broadcast_to(example(*x.shape[-2:]).astype(x.dtype), x.shape)
        # a power of four, whose root is exact too: both times the same pivots are positive
        size = power_of_two_below(root(magnitude(x, (-2, -1)))) ** 2
        unit, moving = where(x / size, stand_in), where(dx / size, jnp.zeros_like(dx))
        moved = [where(d, jnp.zeros_like(d)) for d in jax.jvp(solve, (unit,), (moving,))[1]]
        scale = size.reshape(*size.shape[:-2], *(1,) * (moved[linear].ndim - x.ndim + 2))
        moved[linear] = moved[linear] * scale**degree
        return found, jax.tree.unflatten(jax.tree.structure(found), moved)

    def of_array(matrices: jax.Array) -> Factors:
        return solved(_of_jax(matrices))

    return of_array


def _has_full_rank(_: jax.Array, r: jax.Array) -> jax.Array:
    sizes = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
    return jnp.min(sizes, -1, initial=jnp.inf) > _noise(sizes)


def _are_apart(values: jax.Array, _: jax.Array) -> jax.Array:
    gaps = jnp.diff(values, axis=-1)
    return jnp.min(gaps, -1, initial=jnp.inf) > _noise(jnp.abs(values))


def _are_apart_and_positive(_: jax.Array, values: jax.Array, __: jax.Array) -> jax.Array:
    least = jnp.min(values, -1, initial=jnp.inf)
    return _are_apart(values[..., ::-1], values) & (least > _noise(values))


def _is_definite(lower: jax.Array) -> jax.Array:
    pivots = jnp.real(jnp.diagonal(lower, axis1=-2, axis2=-1))
    return jnp.min(pivots, -1, initial=jnp.inf) > 0


def _noise(sizes: jax.Array) -> jax.Array:
    return jnp.finfo(sizes.dtype).eps * jnp.max(sizes, -1, initial=0)


def _rising(n: int, m: int) -> jax.Array:
    return jnp.eye(n, m) * jnp.arange(1.0, m + 1)


_eigh = _with_derivative(one_by_one(lambda x: tuple(jnp.linalg.eigh(x))), _are_apart, _rising, 0)
_eigh_of_lower = _with_derivative(
    one_by_one(lambda x: tuple(jnp.linalg.eigh(x, symmetrize_input=False))), _are_apart, _rising, 0
)
_qr = _with_derivative(one_by_one(lambda x: jnp.linalg.qr(x)[:2]), _has_full_rank, jnp.eye, 1)
_Triple = tuple[jax.Array, jax.Array, jax.Array]


@functools.cache
def _svd_of(leading: int | None) -> Callable[[jax.Array], _Triple]:
    solve = one_by_one(functools.partial(_thin_svd, leading))
    return _with_derivative(solve, _are_apart_and_positive, _rising, 1)


def _thin_svd(leading: int | None, x: jax.Array) -> _Triple:
    """Of a long matrix that of its triangular factor: vectors along it are only made if wanted."""
    m, n = x.shape[-2:]
    if max(m, n) < LONG * min(m, n) or x.size == 0:
        left, values, right = jnp.linalg.svd(x, full_matrices=False)
        return left[..., :leading], values, right[..., :leading, :]
    if m < n:
        right, values, left = _thin_svd(leading, jnp.swapaxes(x, -1, -2))
        return jnp.swapaxes(left, -1, -2), values, jnp.swapaxes(right, -1, -2)
    share = summable_share(m)  # columns as a whole are longer than their entries
    q, r = jnp.linalg.qr(share * x)
    left, values, right = jnp.linalg.svd(r, full_matrices=False)
    along = jnp.matmul(q, left[..., :leading], precision="highest")
    return along, values / share, right[..., :leading, :]


_full_svd = one_by_one(lambda x: tuple(jnp.linalg.svd(x)))
_singular_values = one_by_one(jnp.linalg.svdvals)
_solve = one_by_one(jnp.linalg.solve)
_inv = one_by_one(jnp.linalg.inv)
_expm = one_by_one(jax.scipy.linalg.expm)
_lower_factor = _with_derivative(
    one_by_one(lambda x: (jnp.linalg.cholesky(x),)), _is_definite, jnp.eye, 0, degree=0.5
)


@one_by_one
def _solve_normal(rows: jax.Array, below: jax.Array, right: jax.Array) -> jax.Array:
    rows, below, right = all_varying((rows, below, right), all_axes_of((rows, below, right)))
    # In two steps long rows are not copied to stand over others; the derivative is the system's,
    # as the first factor has none where the rows are not of full rank.
    long, short = map(jax.lax.stop_gradient, (rows, below))
    both = jnp.concatenate([jnp.linalg.qr(long, mode="r"), short], axis=-2)
    lower = jnp.swapaxes(jnp.linalg.qr(both, mode="r").conj(), -1, -2)

    def solve(_: Callable[..., jax.Array], b: jax.Array) -> jax.Array:
        return jax.scipy.linalg.cho_solve((lower, True), b)

    def transpose_solve(_: Callable[..., jax.Array], b: jax.Array) -> jax.Array:
        return solve(_, b.conj()).conj()

    def applied(x: jax.Array) -> jax.Array:
        return _normal(rows, x) + _normal(below, x)

    solved: jax.Array = jax.lax.custom_linear_solve(applied, right, solve, transpose_solve)
    return solved


def _normal(a: jax.Array, x: jax.Array) -> jax.Array:
    along = jnp.matmul(a, x, precision="highest")
    return jnp.matmul(jnp.swapaxes(a.conj(), -1, -2), along, precision="highest")


_cho_solve = one_by_one(lambda factor, right: jax.scipy.linalg.cho_solve((factor, True), right))


@functools.cache
def _triangular(lower: bool, trans: Trans) -> Callable[..., jax.Array]:
    return one_by_one(
        functools.partial(jax.scipy.linalg.solve_triangular, lower=lower, trans=trans)
    )

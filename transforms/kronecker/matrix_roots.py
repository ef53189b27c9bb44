"""Inverse roots of batches of symmetric positive matrices, by interchangeable solvers."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.checks import checked
from ..notation.known import repeat, repeat_while
from ..notation.roots import norm, root
from .cache_chunks import by_cache_chunks
from .identities import identity_beside

Solver = Callable[[jax.Array, float | jax.Array, float], tuple[jax.Array, jax.Array]]
"""`(matrices (batch, n, n), eps, exponent) -> ((A + eps I)^exponent, residual (batch,))`.

The residual is relative: 0 for an exact root, 1 or more or NaN for a useless one.
"""


def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in full precision, on accelerators too."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _adjoint(a: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(a, -1, -2))


def _symmetric(a: jax.Array) -> jax.Array:
    return (a + _adjoint(a)) / 2


def _trace_norm(a: jax.Array) -> jax.Array:
    return norm(a, axis=(-2, -1))


def _ridged(a: jax.Array, eps: float | jax.Array) -> jax.Array:
    return a + jnp.asarray(eps, a.real.dtype) * identity_beside(a)


@checked()
def eigh_root(
    a: jax.Array, eps: float | jax.Array, exponent: float | jax.Array, rectify: str = "clamp"
) -> tuple[jax.Array, jax.Array]:
    """By symmetric eigendecomposition of the lower triangles; any exponent.

    A function of arrays.

    LAPACK and its kin give NaN where they fail, so that no residual has to be computed.

    Args:
      a: matrices.
      eps: added to the eigenvalues, which are at least the rounding of the largest.
      exponent: of the eigenvalues.
      rectify: negative eigenvalues, which are rounding, are set to zero ("clamp"), or the whole
        spectrum is moved up until the least of them is zero ("shift").
    """
    real = a.real.dtype
    return _eigh_root(a, jnp.asarray(eps, real), jnp.asarray(exponent, real), rectify)


def _spectrum(a: jax.Array, eps: jax.Array, rectify: str) -> tuple[jax.Array, jax.Array]:
    """The rectified eigenvalues with eps, and the eigenvectors."""
    # LAPACK wants columns: the transpose of a symmetric matrix is laid out so, without a copy.
    columns = _adjoint(jax.lax.optimization_barrier(a))
    values, vectors = linalg.eigh(columns, symmetrize_input=False)
    shift = jnp.minimum(values[:, :1], 0)
    values = jnp.maximum(values, 0) if rectify == "clamp" else values - shift
    rounding = jnp.finfo(values.dtype).eps * values[:, -1:]
    return jnp.maximum(values + eps, rounding), vectors


def _turned(vectors: jax.Array, inner: jax.Array) -> jax.Array:
    return multiply(multiply(vectors, inner), _adjoint(vectors))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _eigh_root(
    a: jax.Array, eps: jax.Array, exponent: jax.Array, rectify: str
) -> tuple[jax.Array, jax.Array]:
    values, vectors = _spectrum(a, eps, rectify)
    # One product of a matrix with its own adjoint is exactly symmetric. The barrier keeps the rows
    # as LAPACK leaves them; XLA would transpose them back, with a kernel that is slow to compile.
    powers = values ** (exponent / 2)
    half = jax.lax.optimization_barrier(_adjoint(vectors)) * powers[:, :, None]
    return multiply(_adjoint(half), half), 0 * jnp.sum(powers, axis=1)


@_eigh_root.defjvp
def _eigh_root_jvp(rectify: str, primals: Any, tangents: Any) -> Any:
    """By divided differences (Daleckii & Krein 1965), which stay finite at equal eigenvalues."""
    (a, eps, exponent), (da, deps, dexponent) = primals, tangents
    values, vectors = _spectrum(a, eps, rectify)
    powers = values**exponent
    one, two = values[:, :, None], values[:, None, :]
    close = jnp.abs(one - two) <= 1e-3 * (one + two)
    slope = exponent * ((one + two) / 2) ** (exponent - 1)
    apart = (powers[:, :, None] - powers[:, None, :]) / jnp.where(close, 1, one - two)
    eye = identity_beside(a)
    inner = multiply(multiply(_adjoint(vectors), _symmetric(da)), vectors) + deps * eye
    inner = jnp.where(close, slope, apart) * inner
    by_exponent = jnp.where(values > 0, powers * jnp.log(values), 0)
    inner = inner + dexponent * by_exponent[:, :, None] * eye
    root = multiply(vectors * powers[:, None, :], _adjoint(vectors))
    residual = 0 * jnp.sum(powers, axis=1)
    return (root, residual), (_turned(vectors, inner), jnp.zeros_like(residual))


@checked()
def shifted_eigh_root(
    a: jax.Array, eps: float | jax.Array, exponent: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """As `eigh_root`, with the whole spectrum shifted where an eigenvalue is negative.

    A function of arrays.
    """
    return eigh_root(a, eps, exponent, "shift")


def _order_of(exponent: float | jax.Array, name: str) -> int:
    order = -1 / exponent if isinstance(exponent, int | float) and exponent < 0 else 0.0
    if order < 1 or abs(order - round(order)) > 1e-6:
        raise ValueError(f"the {name} root needs an exponent -1/p with an integer p: {exponent!r}")
    return round(order)


@checked()
@by_cache_chunks
def newton_root(
    a: jax.Array,
    eps: float | jax.Array,
    exponent: float | jax.Array,
    max_iterations: int = 100,
    tolerance: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """By the coupled Newton iteration: matrix products only; exponents -1/p.

    A function of arrays.

        M_0 = z A,  X_0 = z^(1/p) I,  z = (1 + p) / (2 |A|)
        T = ((p + 1) I - M) / p,  M <- T^p M,  X <- X T

    A batch stops when all of its matrices have converged.

    References:
      Guo & Higham 2006, A Schur-Newton method for the matrix pth root and its inverse.
    """
    p = _order_of(exponent, "Newton")
    a = _ridged(_symmetric(a), eps)
    eye = identity_beside(a)
    real = a.real.dtype
    goal = 10 * float(jnp.finfo(real).eps) if tolerance is None else tolerance
    z = (1 + p) / (2 * _trace_norm(a))[:, None, None]

    def error(m: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(m - eye), axis=(-2, -1))

    def going(state: Any) -> Any:
        _, _, now, before, i = state
        return (i < max_iterations) & jnp.any((now > goal) & (now < 1.2 * before))

    def iterate(state: Any) -> Any:
        m, x, now, _, i = state
        t = ((p + 1) * eye - m) / p
        new_m, new_x = multiply(jnp.linalg.matrix_power(t, p), m), multiply(x, t)
        # Once rounding takes over, further iterations only spoil what has been reached.
        new = error(new_m)
        better = (new < 1.2 * now) & (now > goal)
        keep = better[:, None, None]
        m, x = jnp.where(keep, new_m, m), jnp.where(keep, new_x, x)
        return m, x, jnp.where(better, new, now), jnp.where(better, now, 0), i + 1

    m = z * a
    start = error(m)
    x = z ** (1 / p) * jnp.broadcast_to(eye, a.shape)
    # Zero times the input: inside shard_map the loop's state then varies over the mesh like it.
    state = m, x, start, jnp.full_like(start, jnp.inf), jnp.zeros((), jnp.int32)
    _, x, residual, _, _ = repeat_while(going, iterate, state)
    return _symmetric(x), residual


@checked()
@by_cache_chunks
def newton_schulz_root(
    a: jax.Array, eps: float | jax.Array, exponent: float | jax.Array, iterations: int = 30
) -> tuple[jax.Array, jax.Array]:
    """By the coupled Newton-Schulz iteration for square roots; exponents -1/2, -1/4, -1/8, ...

    A function of arrays.

        Y_0 = A / |A|,  Z_0 = I,  T = (3 I - Z Y) / 2,  Y <- Y T,  Z <- T Z

    Y tends to the square root and Z to its inverse, which is halved again for a fourth root.

    References:
      Higham 2008, Functions of Matrices, section 6.7.
    """
    p = _order_of(exponent, "Newton-Schulz")
    if p < 2 or p & (p - 1):
        raise ValueError(f"the Newton-Schulz root needs an exponent -1/2, -1/4, ...: {exponent!r}")
    a = _ridged(_symmetric(a), eps)
    eye = identity_beside(a)

    def roots(a: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = _trace_norm(a)[:, None, None]

        def iterate(_: object, pair: Any) -> Any:
            y, z = pair
            t = (3 * eye - multiply(z, y)) / 2
            return multiply(y, t), multiply(t, z)

        start = a / size, jnp.broadcast_to(eye, a.shape) + 0 * a
        y, z = repeat(iterations, iterate, start)
        return y * root(size), z / root(size)

    forward, inverse = roots(a)
    order = 2
    while order < p:
        # The root of A^(1/q) times that of its inverse is one, so its inverse root is enough.
        forward, inverse = roots(_symmetric(forward))
        order *= 2
    check = multiply(jnp.linalg.matrix_power(inverse, p), a) - eye
    return _symmetric(inverse), jnp.max(jnp.abs(check), axis=(-2, -1))


@checked()
def qr_root(
    a: jax.Array, eps: float | jax.Array, exponent: float | jax.Array, iterations: int = 1
) -> tuple[jax.Array, jax.Array]:
    """By orthogonal iteration from the matrix's own columns; approximate, any exponent.

    A function of arrays.

    `iterations` steps Q <- qr(A Q), from the coordinates ordered by the diagonal, and the root on
    the basis Q with eigenvalues diag(Q^T A Q).

    References:
      Vyas et al. 2024, SOAP: Improving and Stabilizing Shampoo using Adam.
    """
    a = _symmetric(a)
    order = jnp.argsort(-jnp.diagonal(a, axis1=-2, axis2=-1).real, axis=-1)
    basis = jax.nn.one_hot(order, a.shape[-1], axis=-2, dtype=a.dtype)
    for _ in range(iterations):
        basis = linalg.qr(multiply(_ridged(a, eps), basis))[0]
    turned = multiply(multiply(_adjoint(basis), a), basis)
    values = jnp.maximum(jnp.diagonal(turned, axis1=-2, axis2=-1).real, 0)
    powers = (values + jnp.asarray(eps, values.dtype)) ** jnp.asarray(exponent, values.dtype)
    orthogonality = multiply(_adjoint(basis), basis) - identity_beside(a)
    residual = jnp.max(jnp.abs(orthogonality), axis=(-2, -1)) + 0 * jnp.sum(powers, axis=1)
    return multiply(basis * powers[:, None, :], _adjoint(basis)), residual


RootSolver = Literal["eigh", "eigh_shift", "newton", "newton_schulz", "qr"]
ROOT_SOLVERS: dict[RootSolver, Solver] = {
    "eigh": eigh_root,
    "eigh_shift": shifted_eigh_root,
    "newton": newton_root,
    "newton_schulz": newton_schulz_root,
    "qr": qr_root,
}

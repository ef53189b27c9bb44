"""Dense factorisations that cannot stand still, however few threads there are.

On a CPU, jaxlib from 0.10 on spreads a batch of QR, LU, singular value and eigenvalue
decompositions over XLA's pool of threads, and waits for it in a thread of that pool. XLA runs what
is independent at a time: as soon as there are as many of these waits as threads, nobody is left to
do the work, and the program stands still. The functions here decompose one matrix after the other
there, also under `jax.vmap`, so that nothing waits, and XLA spreads what is independent by itself.
On accelerators a batch is one call.
"""

from collections.abc import Callable
from math import prod
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from .known import each, is_known

Value = TypeVar("Value")


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

    @jax.custom_jvp
    def alone(*batches: jax.Array) -> Value:
        # JAX cannot differentiate what has a rule for vmap: the derivative takes the loop itself.
        return sequential_vmap(looped)(*batches)

    alone.defjvp(lambda primals, tangents: jax.jvp(looped, primals, tangents))

    def solved(*batches: jax.Array) -> Value:
        if any(x.size == 0 for x in batches):
            return solve(*batches)
        if is_known(batches):
            return (looped if jax.default_backend() == "cpu" else solve)(*batches)
        return jax.lax.platform_dependent(*batches, cpu=alone, default=solve)

    return solved


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


def svd(matrices: jax.Array, full_matrices: bool = False) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`jnp.linalg.svd`, by default without the vectors that have no singular value.

    A function of arrays.
    """
    return (_full_svd if full_matrices else _svd)(matrices)


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


def expm(matrices: jax.Array) -> jax.Array:
    """`jax.scipy.linalg.expm`.

    A function of arrays.
    """
    return _expm(matrices)


_eigh = one_by_one(lambda x: tuple(jnp.linalg.eigh(x)))
_eigh_of_lower = one_by_one(lambda x: tuple(jnp.linalg.eigh(x, symmetrize_input=False)))
_qr = one_by_one(lambda x: jnp.linalg.qr(x)[:2])
_svd = one_by_one(lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)))
_full_svd = one_by_one(lambda x: tuple(jnp.linalg.svd(x)))
_singular_values = one_by_one(jnp.linalg.svdvals)
_solve = one_by_one(jnp.linalg.solve)
_inv = one_by_one(jnp.linalg.inv)
_expm = one_by_one(jax.scipy.linalg.expm)

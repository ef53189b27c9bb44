"""Lanczos' method: the spectrum of a symmetric matrix of which only products are known."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.checks import checked
from ..notation.domains import Trees
from ..notation.hyperparameters import Size
from ..notation.known import repeat
from ..notation.roots import relative_norm, root

Tree = TypeVar("Tree")


@checked()
def lanczos(
    product: Callable[[Tree], Tree], start: Annotated[Tree, Trees()], num_iterations: Size
) -> tuple[jax.Array, jax.Array]:
    """Ritz values of a symmetric operator, and their weights in its density at the start vector.

    A function of trees.

    Where the vectors of `krylov_basis` span all that there is, the Ritz values and weights that are
    left are zero.

    Args:
      product, start, num_iterations: see `krylov_basis`.

    Returns:
      The Ritz values, ascending, and the weights, which sum to 1.
    """
    _, matrix = krylov_basis(product, start, num_iterations)
    values, vectors = linalg.eigh(matrix)
    return values, vectors[0] ** 2


@checked()
def krylov_basis(
    product: Callable[[Tree], Tree], start: Annotated[Tree, Trees()], num_iterations: Size
) -> tuple[Tree, jax.Array]:
    """An orthonormal basis of what powers of a symmetric operator make of a vector.

    A function of trees.

    Each new vector is made orthogonal to all before it, twice, so that no eigenvalue comes twice.
    Where the vectors span all that there is, those that follow are zero.

    Args:
      product: the operator, on trees like the start.
      start: where the Krylov space starts, of any length but zero; real.
      num_iterations: products that are taken, and vectors that are held.

    Returns:
      The vectors along a leading axis, and the operator in that basis, a tridiagonal matrix.
    """
    length = root(_inner(start, start))
    first = jax.tree.map(lambda leaf: leaf / length, start)
    basis = jax.tree.map(lambda leaf: jnp.zeros((num_iterations, *leaf.shape), leaf.dtype), first)
    none = jnp.zeros(num_iterations, length.dtype)
    carry = (basis, first, none, none)
    basis, _, alpha, beta = repeat(
        num_iterations, lambda i, now: _extended(product, i, *now), carry
    )
    return basis, jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)


def _extended(
    product: Callable[[Tree], Tree],
    i: int | jax.Array,
    basis: Tree,
    vector: Tree,
    alpha: jax.Array,
    beta: jax.Array,
) -> tuple[Tree, Tree, jax.Array, jax.Array]:
    basis = jax.tree.map(lambda rows, leaf: rows.at[i].set(leaf), basis, vector)
    image = product(vector)
    along = _inner(vector, image)
    rest = image
    for _ in range(2):
        rest = _without(basis, rest)
    unit, share = relative_norm(jax.tree.leaves(rest))
    length = unit * share
    alpha = alpha.at[i].set(along)
    # what rounding leaves of nothing is no direction
    size = jnp.maximum(jnp.max(jnp.abs(alpha)), jnp.max(beta))
    ended = length <= 100 * jnp.finfo(length.dtype).eps * size
    length = jnp.where(ended, 0.0, length)
    scale = jnp.where(ended, 0.0, 1 / jnp.where(ended, 1.0, length))
    vector = jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), rest)
    return basis, vector, alpha, beta.at[i].set(length)


def _without(basis: Tree, vector: Tree) -> Tree:
    """The vector less its parts along the rows of the basis, those yet to come being zero."""
    leaves = zip(jax.tree.leaves(basis), jax.tree.leaves(vector), strict=True)
    shares = sum(_product(rows, leaf, leaf.ndim) for rows, leaf in leaves)
    rest: Tree
    rest = jax.tree.map(lambda rows, leaf: leaf - _product(shares, rows, 1), basis, vector)
    return rest


_product = functools.partial(jnp.tensordot, precision="highest")


def _inner(a: Tree, b: Tree) -> Any:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.sum(x * y) for x, y in pairs)

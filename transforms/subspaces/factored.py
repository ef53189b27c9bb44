"""Matrices held as three factors of low rank."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..notation import draws, linalg
from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.sharding import replicated
from ..notation.values import Leaves, serializable


class LowRank(NamedTuple):
    """A matrix u s v^T among the params, in place of the whole.

    Attributes:
      u: (m, r) with orthonormal columns.
      s: (r, r).
      v: (n, r) with orthonormal columns.
    """

    u: Any
    s: Any
    v: Any

    def matrix(self) -> jax.Array:
        """The (m, n) matrix itself."""
        return self.u @ self.s @ self.v.T

    def padded(self, max_rank: int) -> "LowRank":
        """The same matrix with `max_rank` columns, the new ones zero: room for its rank to grow."""
        more = max_rank - self.s.shape[0]
        if more < 0:
            raise FlowError(f"max_rank={max_rank} is below the rank of {self.s.shape[0]}")
        u, v = (jnp.pad(x, ((0, 0), (0, more))) for x in (self.u, self.v))
        return LowRank(u, jnp.pad(self.s, ((0, more), (0, more))), v)

    def rank(self) -> jax.Array:
        """The number of columns that are not padding."""
        return jnp.sum(jnp.any(self.u != 0, axis=0))


serializable(LowRank, ("u", "s", "v"))


def is_low_rank(x: optax.Params) -> bool:
    """Whether something is a `LowRank`."""
    return isinstance(x, LowRank)


@checked()
def factored(matrix: jax.Array, rank: int) -> LowRank:
    """The best approximation of a matrix by one of that rank.

    A function of arrays.

    Raises:
      FlowError: for a rank above the smaller side.
    """
    _check(matrix.shape, rank)
    u, sigma, vt = linalg.svd(matrix, leading=rank)
    return LowRank(u, jnp.diag(sigma[:rank]), vt.T)


@checked()
def random_low_rank(key: jax.Array, shape: tuple[int, int], rank: int) -> LowRank:
    """Random bases, and singular values of a random matrix with entries of variance 1 / m.

    A function of arrays.

    Args:
      key: of `jax.random`.
      shape: (m, n).
      rank: r.

    Raises:
      FlowError: for a rank above the smaller side.
    """
    _check(shape, rank)
    return factored(draws.normal(key, shape) / shape[0] ** 0.5, rank)


from_matrix, lowrank_init = factored, random_low_rank


def _check(shape: tuple[int, ...], rank: int) -> None:
    if not 1 <= rank <= min(shape):
        raise FlowError(
            f"rank={rank} must be from 1 to the smaller side of a {tuple(shape)} matrix"
        )


@checked()
def orthonormal(matrix: jax.Array) -> jax.Array:
    """A basis of the columns' space, by QR with a positive diagonal of R.

    A function of arrays.
    """
    q, r = linalg.qr(replicated(matrix))
    return q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(q.dtype)


@checked()
def at_low_rank(fn: Callable[..., Any], other: Callable[..., Any] | None = None) -> Any:
    """Makes a function of `LowRank` leaves, and one of all others, a function of signals.

    Part of the notation.

    Args:
      fn: of the `LowRank`s at the same place in each tree, and of the scalars behind them; returns
        a `LowRank`, some of whose factors may be `MISSING`.
      other: of all other leaves; default the first of them as it is.
    """

    def whole(first: Leaves, *rest: float | Leaves) -> Leaves:
        def at(x: LowRank, *more: LowRank) -> LowRank:
            given = iter(more)
            args = [next(given) if isinstance(y, Leaves) else y for y in rest]
            return fn(x, *args) if is_low_rank(x) else x if other is None else other(x, *args)

        trees = (tree.tree() for tree in (first, *rest) if isinstance(tree, Leaves))
        return Leaves.up_to(first.treedef, jax.tree.map(at, *trees, is_leaf=is_low_rank))

    return lift_tree(whole, getattr(fn, "__name__", "at_low_rank").strip("_"))

"""Subspaces of some rows, columns or entries of a leaf."""

from typing import Literal

import jax
import jax.numpy as jnp

from ..notation import draws
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.errors import FlowError
from ..notation.functions import lift
from ..notation.hyperparameters import Axis, Key, Sampler, Share, Size
from ..notation.roots import norm
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..trees.random import draw_leaves
from .bases import Coordinates


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
      sampler: `(key, count, params) -> tree` of index arrays in place of random ones; count is 0
        at the first step.
    """

    def draw(fresh: jax.Array, leaf: jax.Array) -> jax.Array:
        size = leaf.size if axis is None else leaf.shape[axis]
        return draws.permutation(fresh, size)[: int(size * density)].astype(jnp.int32)

    def step(g: Signal) -> Signal:
        indices = draw_leaves(g, key, draw, sampler, "indices")
        return lift(lambda x, i: Coordinates(i, None, axis, x.shape), "coordinates")(g, indices)

    return flow(step)


Selection = Literal[
    "topr",
    "multinomial_norm",
    "multinomial_norm2",
    "multinomial_norm_nr",
    "multinomial_norm2_nr",
    "uniform_nr",
]


@transformation()
def selected_slices(
    rank: Size,
    selection: Selection = "topr",
    along: Literal["shorter", "longer"] = "shorter",
    by_norm: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """Some rows of each matrix that comes in, or some of its columns.

    A transformation to send signals through.

    "topr" takes the `rank` slices of largest norm n_i. "multinomial_norm" and "multinomial_norm2"
    draw that many, each anew, with the probabilities q_i in proportion to n_i or n_i^2, and give
    them the weights 1 / sqrt(rank q_i), so that the projection is the identity in the mean; a slice
    of zeros is never drawn. With "_nr" nothing is drawn twice, and weights are 1; "uniform_nr"
    takes no account of norms.

    Args:
      rank: how many.
      selection: one of the above.
      along: whether the slices are counted along the shorter side, rows of a wide or square matrix
        and columns of a tall one, or along the longer, rows of a tall or square one.
      by_norm: "topr" in order of decreasing norm; default in that of the index.
      key: seed or key.
      sampler: `(key, count, params) -> tree` of index arrays in place of random ones; count is 0
        at the first step.

    Raises:
      FlowError: for a matrix that has fewer slices.

    References:
      Muhamed et al. 2024, Grass (arXiv 2406.17660).
    """
    again = selection in ("multinomial_norm", "multinomial_norm2")

    def axis_of(matrix: jax.Array) -> int:
        m, n = matrix.shape
        if rank > (min if along == "shorter" else max)(m, n):
            raise FlowError(f"rank={rank} exceeds the {along} side of a leaf of shape {(m, n)}")
        return int(m > n) if along == "shorter" else int(m < n)

    def shares(matrix: jax.Array) -> jax.Array:
        """Of each slice its probability; "topr": how large it is."""
        sizes = norm(replicated(matrix), axis=1 - axis_of(matrix))
        if selection == "topr":
            return sizes
        largest = jnp.max(sizes)
        relative = jnp.where(largest > 0, sizes / jnp.where(largest > 0, largest, 1), 1)
        if selection == "uniform_nr":
            relative = jnp.ones_like(relative)
        weight = relative**2 if "norm2" in selection else relative
        return weight / jnp.sum(weight)

    def largest(sizes: jax.Array) -> jax.Array:
        chosen = jax.lax.top_k(sizes, rank)[1]
        return chosen if by_norm else jnp.sort(chosen)

    def draw(fresh: jax.Array, q: jax.Array) -> jax.Array:
        logs = jnp.where(q > 0, jnp.log(jnp.where(q > 0, q, 1)), -jnp.inf)
        if again:
            return draws.categorical(fresh, logs, shape=(rank,)).astype(jnp.int32)
        # The largest of logarithms with Gumbel noise are draws without replacement.
        return jax.lax.top_k(logs + draws.gumbel(fresh, q.shape, q.dtype), rank)[1]

    def slices(matrix: jax.Array, indices: jax.Array, q: jax.Array) -> Coordinates:
        weights = jax.lax.rsqrt(rank * q[indices]) if again else None
        return Coordinates(indices, weights, axis_of(matrix), matrix.shape)

    def step(g: Signal) -> Signal:
        q = lift(shares, "shares")(g)
        if selection == "topr" and sampler is None:
            indices = lift(largest, "largest")(q)
        else:
            indices = draw_leaves(q, key, draw, sampler, "indices")
        return lift(slices, "slices")(g, indices, q)

    return flow(step)

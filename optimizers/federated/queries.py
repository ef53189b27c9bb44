"""Which values a client fits its surrogate to, and for which it asks next."""

from typing import Any

import jax
import jax.numpy as jnp

from ...transforms import FlowError, Key, PositiveConstant, Sampler, Size
from ...transforms.notation.checks import checked
from ...transforms.trees.random import typed_key
from .history import Queries, point_of, queries_of
from .trajectory_surrogate import Surrogate


@checked()
def nearest_queries(
    history_x: jax.Array,
    history_y: jax.Array,
    x: jax.Array,
    max_queries: Size = 150,
    seen: jax.Array | None = None,
) -> Queries:
    """Those of a history that are nearest to a point, the nearest first.

    Args:
      history_x: points in rows.
      history_y: a value for each.
      x: a point; distances are Euclidean.
      max_queries: how many are taken of a history that has as many.
      seen: bool for each, whether it has been evaluated, for a history of fixed size that fills up;
        None: all.

    Returns:
      `points`, `values` and `seen`; the last is False where fewer have been seen. Hand it on by
      `fit(*nearest)`.

    Raises:
      ValueError: for what does not belong together.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import nearest_queries
      >>> X = jnp.array([[0.0], [3.0], [1.0], [7.0]])
      >>> nearest_queries(X, X[:, 0] ** 2, jnp.array([2.5]), max_queries=2).values.tolist()
      [9.0, 1.0]

    References:
      Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
      Gradients (arXiv 2308.04077); the number is that of shuyao95/FZooS.
    """
    queries = queries_of("nearest_queries", history_x, history_y, seen)
    point = point_of("nearest_queries", x, queries.points.shape[1])
    squares = jnp.sum((queries.points - point[None]) ** 2, axis=1)
    closeness = jnp.where(queries.seen, -squares, -jnp.inf)
    _, rows = jax.lax.top_k(closeness, min(max_queries, len(squares)))
    return Queries(*(column[rows] for column in queries))


@checked()
def active_queries(
    surrogate: Surrogate,
    x: jax.Array,
    key: Key = 0,
    num_candidates: Size = 100,
    num_queries: Size = 5,
    radius: PositiveConstant = 0.01,
    sampler: Sampler | None = None,
) -> Any:
    r"""Points around the present one at which a surrogate knows least of the gradient.

    Of candidates drawn uniformly from the cube of half-width r around x, those of the largest
    `gradient_variance` are taken. All are judged by what is known before any of them is queried.

    Args:
      surrogate: of `trajectory_gradient_surrogate`, fitted to a history that has x.
      x: the point.
      key: a fresh one for each call.
      num_candidates: how many are drawn.
      num_queries: how many of them are taken.
      radius: r, in the units of x.
      sampler: `(key, count, params) -> array[num_candidates, dims]` of offsets in [-1, 1] in place
        of the uniform draws; count is 0, params is x.

    Returns:
      The points in rows, the one of largest variance first.

    Raises:
      ValueError: for more queries than candidates, or what does not belong together.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import active_queries, trajectory_gradient_surrogate
      >>> X = jnp.array([[0.0], [0.3]])
      >>> surrogate = trajectory_gradient_surrogate().fit(X, X[:, 0])
      >>> offsets = lambda key, count, x: jnp.array([[0.5], [0.1], [-1.0]])
      >>> active_queries(surrogate, X[0], num_candidates=3, num_queries=1, radius=0.5,
      ...                sampler=offsets).tolist()
      [[-0.5]]

    References:
      Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
      Gradients (arXiv 2308.04077); numbers and cube are those of shuyao95/FZooS, which adds x to
      every point of the history before it judges. For the variance see
      `trajectory_gradient_surrogate`.
    """
    if num_queries > num_candidates:
        raise FlowError(
            f"active_queries: num_queries={num_queries} must be at most "
            f"num_candidates={num_candidates}"
        )
    point = point_of("active_queries", x, surrogate.points.shape[1])
    shape = (num_candidates, *point.shape)
    if sampler is None:
        offsets = jax.random.uniform(typed_key(key), shape, point.dtype, -1.0, 1.0)
    else:
        offsets = jnp.asarray(sampler(typed_key(key), 0, point), point.dtype)
        if offsets.shape != shape:
            raise FlowError(
                f"active_queries: sampler must give offsets of shape {shape}; they have the shape "
                f"{offsets.shape}"
            )
    candidates = point[None] + jnp.asarray(radius, point.dtype) * offsets
    variances = jax.vmap(surrogate.gradient_variance)(candidates)
    _, rows = jax.lax.top_k(variances, num_queries)
    return candidates[rows]

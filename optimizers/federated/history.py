"""Values that a client has seen, and the least squares that surrogates are fitted to them by."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...transforms import FlowError
from ...transforms.notation.linalg import eigh


class Queries(NamedTuple):
    """Where a function has been evaluated; what `fit` of a surrogate takes.

    Attributes:
      points: in rows.
      values: one for each.
      seen: bool for each, whether it has been; what the others hold has no effect.
    """

    points: jax.Array
    values: jax.Array
    seen: jax.Array


def queries_of(label: str, history_x: jax.Array, history_y: jax.Array, seen: Any = None) -> Queries:
    """A history in the precision in which it is fitted, with zeros where nothing has been seen.

    Args:
      label: of the function that is given it, for messages.
      history_x: points in rows.
      history_y: a value for each.
      seen: bool for each; None: all.
    """
    points = jnp.asarray(history_x, jnp.result_type(float))
    values = jnp.asarray(history_y, points.dtype)
    if points.ndim != 2 or values.shape != points.shape[:1] or not len(points):
        raise FlowError(
            f"{label}: history_x must be points in rows and history_y a value for each; they have "
            f"the shapes {points.shape} and {values.shape}"
        )
    there = jnp.ones(len(points), bool) if seen is None else jnp.asarray(seen)
    if there.dtype != bool or there.shape != values.shape:
        raise FlowError(
            f"{label}: seen must be a bool for each of {len(points)} points; it is {there.dtype} "
            f"of shape {there.shape}"
        )
    return Queries(jnp.where(there[:, None], points, 0.0), jnp.where(there, values, 0.0), there)


def point_of(label: str, x: jax.Array, num_dims: int) -> jax.Array:
    """One point, in the precision in which surrogates are fitted."""
    point = jnp.asarray(x, jnp.result_type(float))
    if point.shape != (num_dims,):
        raise FlowError(
            f"{label}: x must be a point of {num_dims} entries; it has the shape {point.shape}"
        )
    return point


def scaled_values(queries: Queries) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The values brought to [0, 1], 0 where nothing has been seen; the least, and the width."""
    _, values, seen = queries
    low = jnp.min(jnp.where(seen, values, jnp.inf))
    high = jnp.max(jnp.where(seen, values, -jnp.inf))
    low, high = (jnp.where(jnp.any(seen), bound, 0.0) for bound in (low, high))
    width = high - low
    return jnp.where(seen, (values - low) / (width + 1e-20), 0.0), low, width


def inverse_root(gram: jax.Array, noise: float | jax.Array, seen: jax.Array) -> jax.Array:
    """B, with B B' the inverse of the Gram matrix with noise on its diagonal.

    Directions that are nothing but rounding are left out, as in a pseudo-inverse: without noise,
    what is solved by it is a least squares solution of least norm. Rows that have not been seen
    are 0.
    """
    values, vectors = eigh(jnp.where(seen[:, None] & seen[None], gram, 0.0))
    divisor = jnp.maximum(values, 0.0) + jnp.asarray(noise, gram.dtype)
    rounding = len(gram) * jnp.finfo(gram.dtype).eps * values[-1]
    kept = divisor > jnp.maximum(rounding, 0.0)
    roots = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, divisor, 1.0)), 0.0)
    return jnp.where(seen[:, None], vectors * roots[None], 0.0)

"""Gradients of single examples, stacked, of which each is clipped over all leaves."""

from typing import Any

import jax
import jax.numpy as jnp

from ...transforms import Hyperparameter, Signal, lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.roots import norm
from ...transforms.notation.values import Leaves, scalar_dtype
from ...transforms.objectives.stacked import count_objectives, like_params
from ...transforms.workers import axis


def clipped_sum(g: Signal, radius: Hyperparameter) -> Signal:
    """The sum over examples of their gradients, each scaled down to a norm over all leaves."""
    return _clipped_sum(g, radius)


def number_of_examples(g: Signal, axis_name: str | None = None) -> Signal:
    """How many gradients are stacked, of all workers along an axis together."""

    def counted(context: Context, tree: Leaves) -> jax.Array:
        local = count_objectives(context, tree, "examples")
        workers = axis.count_workers(axis_name) if axis.is_bound(axis_name) else 1
        return jnp.asarray(local * workers, context.scalar_dtype)

    return lift_tree(counted, "number_of_examples", context=True, out="scalar")(g)


def factors(leaves: list[jax.Array], radius: Any) -> jax.Array:
    """What each example's gradient is multiplied by; 0 where it is not finite.

    Args:
      leaves: arrays with the examples on the leading axis.
      radius: the largest norm.
    """
    parts = [norm(x, tuple(range(1, x.ndim))) for x in leaves]
    dtype = scalar_dtype(parts)
    lengths = norm(jnp.stack([part.astype(dtype) for part in parts]), 0)
    radius = jnp.asarray(radius, dtype)
    over = lengths > radius
    shrunk = radius / jnp.where(over, lengths, 1)
    return jnp.where(jnp.isfinite(lengths), jnp.where(over, shrunk, 1), 0)


def scaled_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum over examples, each times its weight; whose weight is 0 may hold anything."""
    weights = weights.astype(jnp.finfo(x.dtype).dtype)
    shaped = weights.reshape(-1, *[1] * (x.ndim - 1))
    x = jnp.where(shaped == 0, jnp.zeros_like(x), x)
    return jnp.tensordot(weights, x, axes=1, precision="highest")


def _clipped_sum_of(context: Context, tree: Leaves, radius: float | jax.Array) -> Leaves:
    count_objectives(context, tree, "examples")
    present = tree.present()
    if not present:
        return tree
    weights = factors([jax.lax.stop_gradient(x) for x in present], radius)
    return tree.map(lambda x: scaled_sum(x, weights))


_clipped_sum = lift_tree(_clipped_sum_of, "clipped_sum", context=True, out=like_params)

"""Batched work spread over the devices of a mesh, each doing its share."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ..notation.sharding import explicit_axes, replicated, resharded


def spread_batch(fn: Callable[[Any], Any], batch: jax.Array, axis_name: str | None = None) -> Any:
    """`fn` of a batch of square matrices, each device taking its share of them.

    A function of arrays.

    Under an explicit mesh all its axes are used. Inside `jax.shard_map` it is the axis that is
    given; without either, everything is done where the program runs. Every device has the whole
    result.

    Args:
      fn: function of (batch, n, n) that treats every matrix on its own.
      batch: the matrices, the same on every device.
      axis_name: mesh axis of the surrounding `shard_map`.

    Returns:
      What `fn` returns: arrays with the batch as their leading axis.
    """
    axes = explicit_axes(batch)
    if axis_name is not None:
        return _own_share(fn, batch, axis_name)
    if not axes or batch.shape[0] == 1:
        return fn(batch)
    mesh = jax.typeof(batch).sharding.mesh
    spec = PartitionSpec(axes)
    filled = padded(batch, prod(mesh.shape[axis] for axis in axes))
    shares = jax.sharding.reshard(filled, spec)
    done = jax.shard_map(fn, in_specs=spec, out_specs=spec)(shares)
    return jax.tree.map(lambda x: replicated(x)[: batch.shape[0]], done)


def over_batch(stack: jax.Array) -> jax.Array:
    """A stack of matrices, of which each device of an explicit mesh has its share, in full.

    A function of arrays.

    Zeros stand behind them where the devices are no divisor of their number. A single matrix, and
    what is no stack, is on every device.

    Args:
      stack: (batch, m, n), spread in any way; `from_batch` is the way back.
    """
    axes = explicit_axes(stack)
    if not axes or stack.ndim < 3 or stack.shape[0] == 1:
        return replicated(stack)
    mesh = jax.typeof(stack).sharding.mesh
    missing = -stack.shape[0] % prod(mesh.shape[axis] for axis in axes)
    if missing:
        zeros = resharded(jnp.zeros((missing, *stack.shape[1:]), stack.dtype), stack)
        stack = jnp.concatenate([stack, zeros])
    # by way of every device: between these two the partitioner knows no shorter one, and says so
    return jax.sharding.reshard(replicated(stack), PartitionSpec(axes))


def from_batch(stack: jax.Array, like: jax.Array) -> jax.Array:
    """What is done to a stack `over_batch`, spread as the stack was before.

    A function of arrays.

    Args:
      stack: as long as `over_batch` made it.
      like: the stack that it was made of.
    """
    back = resharded(replicated(stack), like)
    return back[: like.shape[0]] if like.ndim > 2 else back


def _own_share(fn: Callable[[Any], Any], batch: Any, axis_name: str) -> Any:
    devices = jax.lax.axis_size(axis_name)
    filled = padded(batch, devices)
    size = filled.shape[0] // devices
    at = jax.lax.axis_index(axis_name) * size
    mine = fn(jax.lax.dynamic_slice_in_dim(filled, at, size))

    def gathered(share: Any) -> Any:
        # A sum of disjoint shares, unlike all_gather, is known to be the same on all devices.
        numbers = share.astype(jnp.int32) if share.dtype == jnp.bool_ else share
        empty = jnp.zeros((filled.shape[0], *share.shape[1:]), numbers.dtype)
        placed = jax.lax.dynamic_update_slice_in_dim(empty, numbers, at, 0)
        return jax.lax.psum(placed, axis_name).astype(share.dtype)[: batch.shape[0]]

    return jax.tree.map(gathered, mine)


def padded(batch: Any, multiple: int) -> Any:
    """The batch with identity matrices behind it, as many as make it divisible."""
    missing = -batch.shape[0] % multiple
    if not missing:
        return batch
    eye = jnp.eye(batch.shape[-2], batch.shape[-1], dtype=batch.dtype)
    return jnp.concatenate([batch, jnp.broadcast_to(eye, (missing, *eye.shape))])

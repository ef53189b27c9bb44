"""Batched work spread over the devices of a mesh, each doing its share."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ..notation.checks import checked
from ..notation.hyperparameters import Tree
from ..notation.sharding import explicit_axes, replicated, resharded


def by_share(stack: jax.Array) -> jax.Array:
    """A stack of which each device of an explicit mesh has some of the matrices, in full.

    A function of arrays.

    It is spread over as many axes of the mesh as divide the number of its matrices, so that it has
    the same shape on every mesh; where none does, every device has all of it.

    Args:
      stack: (batch, ...), spread in any way.
    """
    axes, devices = [], 1
    for axis in explicit_axes(stack):
        size = jax.typeof(stack).sharding.mesh.shape[axis]
        if stack.shape[0] % (devices * size) == 0:
            axes.append(axis)
            devices *= size
    whole = replicated(stack)
    return jax.sharding.reshard(whole, PartitionSpec(tuple(axes))) if devices > 1 else whole


def share_axes(stack: jax.Array) -> tuple[str, ...]:
    """The axes of an explicit mesh over which the matrices of a stack are spread."""
    if not explicit_axes(stack) or not stack.ndim:
        return ()
    (first, *_) = jax.typeof(stack).sharding.spec
    return () if first is None else first if isinstance(first, tuple) else (first,)


def shared_like(value: jax.Array, stack: jax.Array) -> jax.Array:
    """An array with something for each matrix of a stack, spread as these are.

    A function of arrays.
    """
    axes = share_axes(stack)
    return jax.sharding.reshard(value, PartitionSpec(axes)) if axes else value


def where_it_lies(fn: Callable[..., Any], batch: Any, *beside: Any) -> Any:
    """`fn` of stacks that `by_share` spread, of which each device takes those that it has.

    A function of arrays.

    Args:
      fn: function of a tree of stacks that treats every element on its own, and of what is beside.
      batch: stacks of one length.
      *beside: the same for all elements.

    Returns:
      What `fn` returns, spread as the batch is.
    """
    axes = share_axes(jax.tree.leaves(batch)[0])
    return _sharing(fn, axes, batch, *beside) if axes else fn(batch, *beside)


def _sharing(fn: Callable[..., Any], axes: tuple[str, ...], batch: Any, *beside: Any) -> Any:
    spec, same = PartitionSpec(axes), PartitionSpec()
    whole = jax.tree.map(lambda x: replicated(jnp.asarray(x)), beside)
    specs = (spec, *(same for _ in beside))
    return jax.shard_map(fn, in_specs=specs, out_specs=spec)(batch, *whole)


@checked()
def spread_batch(
    fn: Callable[..., Any], batch: Tree, *beside: Any, axis_name: str | None = None
) -> Any:
    """`fn` of a batch of square matrices, each device taking its share of them.

    A function of arrays.

    Under an explicit mesh all its axes are used. Inside `jax.shard_map` it is the axis that is
    given; without either, everything is done where the program runs.

    Args:
      fn: function of (batch, n, n), or of a tree of such, that treats every matrix on its own, and
        of what is beside.
      batch: the matrices, as `by_share` spreads them, or the same on every device.
      *beside: the same for all matrices.
      axis_name: mesh axis of the surrounding `shard_map`.

    Returns:
      What `fn` returns: arrays with the batch as their leading axis, spread as the batch is.
    """
    if axis_name is not None:
        return _own_share(lambda share: fn(share, *beside), batch, axis_name)
    first = jax.tree.leaves(batch)[0]
    axes, count = explicit_axes(first), first.shape[0]
    if not axes or count == 1:
        return fn(batch, *beside)
    if share_axes(first) == axes:
        return where_it_lies(fn, batch, *beside)
    mesh, spec = jax.typeof(first).sharding.mesh, PartitionSpec(axes)

    def share(x: jax.Array) -> jax.Array:
        filled = padded(replicated(x), prod(mesh.shape[axis] for axis in axes))
        return jax.sharding.reshard(filled, spec)

    done = _sharing(fn, axes, jax.tree.map(share, batch), *beside)
    return jax.tree.map(lambda x: shared_like(replicated(x)[:count], first), done)


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

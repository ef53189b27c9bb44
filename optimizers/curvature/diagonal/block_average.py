"""Averages over parts of a leaf, spread over the part again."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ....transforms import Flow, Signal, flow, lift, transformation
from ....transforms.notation import ByDimension

SPATIAL_AXES: Mapping[int, tuple[int, ...]] = {4: (0, 1)}
"""The spatial axes of Flax's convolution kernels (height, width, in, out)."""


@transformation()
def block_average(
    average_axes: ByDimension | None = None,
    block_sizes: ByDimension | None = None,
) -> Flow:
    """Replaces every entry by the mean of its block.

    Args:
      average_axes: number of dimensions of a leaf -> axes over which it is averaged; default the
        spatial axes of Flax's convolution kernels, `{4: (0, 1)}`. Leaves of other dimensions
        stay as they are. Keys may be text, as a configuration file has them.
      block_sizes: number of dimensions -> B: the leaf, flattened row-major, is averaged over
        consecutive blocks of B entries. It wins over `average_axes`.

    Raises:
      ValueError: when it runs, if B does not divide the size of a leaf.
    """
    axes = SPATIAL_AXES if average_axes is None else _by_number(average_axes)
    blocks = _by_number(block_sizes or {})
    averaged = lift(lambda x: _averaged(x, axes, blocks), "block_average")

    def step(g: Signal) -> Signal:
        return averaged(g)

    return flow(step)


def _by_number(given: Mapping[Any, Any]) -> dict[int, Any]:
    return {int(dimensions): value for dimensions, value in given.items()}


def _averaged(
    x: jax.Array, axes: Mapping[int, Sequence[int]], blocks: Mapping[int, int]
) -> jax.Array:
    if x.size == 0:
        return x
    if x.ndim in blocks:
        return _blockwise(x, blocks[x.ndim])
    if not axes.get(x.ndim):
        return x
    mean = jnp.mean(x, axis=tuple(axes[x.ndim]), keepdims=True)
    return jnp.broadcast_to(mean, x.shape)


def _blockwise(x: Any, size: int) -> Any:
    if size < 1 or x.size % size:
        raise ValueError(f"block_sizes: {size} does not divide a leaf of shape {x.shape}")
    rows = x.reshape(-1, size)
    return jnp.broadcast_to(jnp.mean(rows, axis=1, keepdims=True), rows.shape).reshape(x.shape)

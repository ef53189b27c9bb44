"""How far two trees point the same way."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import divide_or_zero, global_dot, lift, maximum, norm_factors
from ..notation.hyperparameters import Axis, NonNegative
from ..notation.roots import magnitude, norm
from ..notation.signal import Signal
from .channels import other_axes

Granularity = Literal["tensor", "filter", "global"]


@checked()
def cosine_similarity(
    a: Signal,
    b: Signal,
    eps: NonNegative = 1e-8,
    granularity: Granularity = "tensor",
    channel_axis: Axis = -1,
) -> Signal:
    """<a, b> / max(|a| |b|, eps): 0 where one of them is zero.

    A function of signals.

    Args:
      a, b: tree signals.
      eps: least product of the norms.
      granularity: "tensor" for one value per leaf, "filter" for one per output channel (per leaf
        for scalars and vectors), shaped to broadcast, "global" for one of the whole trees.
      channel_axis: axis of the output channels: -1 in Flax kernels, 0 in those of torch.
    """
    if granularity == "global":
        (size_a, length_a), (size_b, length_b) = norm_factors(a), norm_factors(b)
        dot = global_dot(a / size_a, b / size_b)
    else:
        axis = channel_axis if granularity == "filter" else None
        size_a, size_b = (_size(x, channel_axis=axis) for x in (a, b))
        a, b = a / size_a, b / size_b
        length_a, length_b = (_length(x, channel_axis=axis) for x in (a, b))
        dot = _dot(a, b, channel_axis=axis)
    return divide_or_zero(dot, maximum(length_a * length_b, eps / size_a / size_b))


@lift
def _size(x: jax.Array, channel_axis: int | None) -> jax.Array:
    """A number near the largest entry, by which squares are brought into the format."""
    if not _within(x, channel_axis):
        return magnitude(x).reshape(())
    assert channel_axis is not None
    return magnitude(x, other_axes(x, channel_axis))


@lift
def _dot(x: jax.Array, y: jax.Array, channel_axis: int | None) -> jax.Array:
    return jnp.sum((x * jnp.conj(y)).real, **_within(x, channel_axis))


@lift
def _length(x: jax.Array, channel_axis: int | None) -> jax.Array:
    return norm(x, **_within(x, channel_axis))


def _within(x: jax.Array, channel_axis: int | None) -> dict[str, Any]:
    """The axes that are summed over, and whether they stay."""
    if channel_axis is None or x.ndim <= 1:
        return {}
    return {"axis": other_axes(x, channel_axis), "keepdims": True}

"""How far two trees point the same way."""

from typing import Any, Literal

import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import divide_or_zero, global_dot, global_norm, lift, maximum
from ..notation.hyperparameters import Axis, NonNegative
from ..notation.roots import norm
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
        dot, lengths = global_dot(a, b), global_norm(a) * global_norm(b)
    else:
        axis = channel_axis if granularity == "filter" else None
        dot = _dot(a, b, channel_axis=axis)
        lengths = _length(a, channel_axis=axis) * _length(b, channel_axis=axis)
    return divide_or_zero(dot, maximum(lengths, eps))


@lift
def _dot(x: Any, y: Any, channel_axis: int | None) -> Any:
    return jnp.sum((x * jnp.conj(y)).real, **_within(x, channel_axis))


@lift
def _length(x: Any, channel_axis: int | None) -> Any:
    return norm(x, **_within(x, channel_axis))


def _within(x: Any, channel_axis: int | None) -> dict[str, Any]:
    """The axes that are summed over, and whether they stay."""
    if channel_axis is None or x.ndim <= 1:
        return {}
    return {"axis": other_axes(x, channel_axis), "keepdims": True}

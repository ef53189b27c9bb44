"""Which modules are layers, and how each kind marks what goes in and out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..transforms.notation.errors import FlowError
from .marks import mark


def is_skipped(name: str, skip: Sequence[str]) -> bool:
    return any(name == one or name.startswith(one + "/") for one in skip)


def is_plain(module: object, known: type) -> bool:
    """Whether a module is of that type, or of one derived from it that computes the same."""
    if not isinstance(module, known):
        return False
    between = type(module).__mro__[: type(module).__mro__.index(known)]
    return not any("__call__" in vars(cls) for cls in between)


def refuse_unknown(name: str, module: Any, own: Mapping[str, Any]) -> None:
    for key, value in own.items():
        if getattr(value, "ndim", 0) >= 2:
            raise FlowError(
                f"the layer {name} ({type(module).__name__}) has a weight {key!r} of shape "
                f"{value.shape}, and how it is used is not known; leave it out with "
                f"skip=({name!r},), and it follows the plain gradient"
            )


def mark_dense(module: Any, name: str, kernel: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return mark(x, y, kernel, name, "dense", 0, 1)


def mark_general(
    module: Any, name: str, kernel: jax.Array, x: jax.Array, y: jax.Array
) -> jax.Array:
    if getattr(module, "batch_dims", None) or getattr(module, "batch_axis", None):
        raise FlowError(f"the layer {name} has batch axes: skip=({name!r},) leaves it out")
    axes = tuple(axis % x.ndim for axis in _as_tuple(module.axis))
    outputs = kernel.ndim - len(axes)
    last = tuple(range(x.ndim - len(axes), x.ndim))
    flat = jnp.moveaxis(x, axes, last)
    flat = flat.reshape(*flat.shape[: x.ndim - len(axes)], -1)
    flat_y = y.reshape(*y.shape[: y.ndim - outputs], -1)
    return mark(flat, flat_y, kernel, name, "dense", 0, outputs).reshape(y.shape)


def _as_tuple(value: int | tuple[int, int]) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    return tuple(value or ())


def mark_conv(module: Any, name: str, kernel: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    if module.feature_group_count != 1 or module.mask is not None:
        what = "a mask" if module.mask is not None else "feature groups"
        raise FlowError(f"the convolution {name} has {what}: skip=({name!r},) leaves it out")
    spatial = kernel.ndim - 2
    lead = x.shape[: x.ndim - spatial - 1]
    images = x.reshape(-1, *x.shape[x.ndim - spatial - 1 :])
    patches = _patches(module, kernel.shape, images)
    return mark(patches.reshape(*lead, *patches.shape[1:]), y, kernel, name, "conv", spatial, 1)


def _patches(module: Any, kernel_shape: tuple[int, ...], images: jax.Array) -> jax.Array:
    """The patches that a convolution sees, (batch, *positions, entries), entries as in a kernel."""
    window, features = kernel_shape[:-2], kernel_shape[-2]
    axes = len(window)

    def broadcast(value: int | tuple[int, int]) -> tuple[int, ...]:
        return (value or 1,) * axes if isinstance(value, int | None) else tuple(value)

    dilation = broadcast(module.kernel_dilation)
    padding = module.padding
    extent = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
    if padding in ("CIRCULAR", "REFLECT"):
        pads = [(0, 0), *((e // 2, (e + 1) // 2) for e in extent), (0, 0)]
        images = jnp.pad(images, pads, mode="wrap" if padding == "CIRCULAR" else "reflect")
        padding = "VALID"
    elif padding == "CAUSAL":
        images = jnp.pad(images, [(0, 0), (extent[0], 0), (0, 0)])
        padding = "VALID"
    elif isinstance(padding, int):
        padding = [(padding, padding)] * axes
    elif not isinstance(padding, str):
        padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    letters = "HWDXYZ"[:axes]
    patches = jax.lax.conv_general_dilated_patches(
        images,
        window,
        broadcast(module.strides),
        padding,
        lhs_dilation=broadcast(module.input_dilation),
        rhs_dilation=dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        precision=jax.lax.Precision.HIGHEST,
    )
    patches = patches.reshape(*patches.shape[:-1], features, *window)
    patches = jnp.moveaxis(patches, axes + 1, -1)
    return patches.reshape(*patches.shape[: axes + 1], -1)

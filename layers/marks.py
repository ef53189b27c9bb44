"""The mark: an operation without effect that names a layer's input, output and kernel."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

mark_p = core.Primitive("gradchain_layer")
"""(x, y, kernel) -> y. Params: name, kind, spatial, outputs, and `stacked`: for every axis that a
vmap put in front of x and y, whether the kernel has it, too."""


def mark(
    x: jax.Array, y: jax.Array, kernel: jax.Array, name: str, kind: str, spatial: int, outputs: int
) -> jax.Array:
    return mark_p.bind(
        jax.lax.stop_gradient(x),
        y,
        kernel,
        name=name,
        kind=kind,
        spatial=spatial,
        outputs=outputs,
        stacked=(),
    )


def _marked_batch(
    args: tuple[jax.Array, jax.Array, jax.Array],
    dims: Any,
    *,
    stacked: tuple[()],
    **params: int | str,
) -> tuple[jax.Array, int]:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    x, y = (batching.bdim_at_front(a, d, size) for a, d in zip(args[:2], dims[:2], strict=True))
    kernel, is_stack = args[2], dims[2] is not None
    if is_stack:
        kernel = jnp.moveaxis(kernel, dims[2], 0)
    return mark_p.bind(x, y, kernel, stacked=(is_stack, *stacked), **params), 0


mark_p.def_impl(lambda x, y, kernel, **_: y)
mark_p.def_abstract_eval(lambda x, y, kernel, **_: y)
ad.primitive_jvps[mark_p] = lambda primals, tangents, **params: (
    mark_p.bind(*primals, **params),
    tangents[1],
)
batching.primitive_batchers[mark_p] = _marked_batch
mlir.register_lowering(mark_p, lambda context, x, y, kernel, **_: [y])

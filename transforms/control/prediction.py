"""Parameters that the training loop does not see: the true weights of a method."""

import dataclasses
from typing import Any

import optax

from ..notation.build import stateful
from ..notation.context import Context
from ..notation.foreign import Kernel, kernel_of
from ..notation.signal import Signal
from ..notation.values import Leaves


def send_at(params: Signal, g: Signal, inner: optax.GradientTransformation) -> Signal:
    """Sends `g` through a transformation that is shown other params than the loop's.

    Args:
      params: what the transformation sees as params; its weight decay acts on them.
      g: its input.
      inner: any transformation.
    """
    return stateful(_shown_other_params(inner), g, params)


def _shown_other_params(inner: optax.GradientTransformation) -> Kernel:
    kernel = kernel_of(inner)

    def elsewhere(context: Context, at: Leaves) -> Context:
        return dataclasses.replace(context, params=at, given=at)

    def init(context: Context, value: Leaves, at: Leaves) -> Any:
        return kernel.init(context, value)

    def run(context: Context, state: Any, value: Leaves, at: Leaves) -> tuple[Any, Any]:
        return kernel.update(elsewhere(context, at), state, value)

    def out(context: Context, value: Any, at: Any) -> Any:
        return kernel.out(context, value) if kernel.out else value

    def rebuilt(children: tuple[Any, ...]) -> Kernel:
        return _shown_other_params(*children)

    return dataclasses.replace(
        kernel,
        init=init,
        update=run,
        out=out,
        needs=tuple(name for name in kernel.needs if name != "params"),
        children=kernel.children or (inner,),
        inside=kernel.inside if kernel.children else None,
        rebuild=kernel.rebuild and rebuilt,
    )

"""Transformations for some of the leaves."""

import optax

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import merge, split
from ..notation.hyperparameters import Mask
from ..notation.signal import Signal


@transformation()
def masked(inner: optax.GradientTransformation, mask: Mask | None = True) -> Flow:
    """Sends the selected leaves through a transformation and leaves the others as they are.

    A transformation to send signals through.

    As `optax.masked`, as part of the flow: the state has no trace of the others.

    Args:
      inner: any transformation.
      mask: a boolean, a tree of booleans, or a function from the params to such a tree.
    """

    if mask is None or mask is True:
        return flow(lambda g: g >> inner)

    def step(g: Signal) -> Signal:
        chosen, others = split(g, mask)
        return merge(chosen >> inner, others)

    return flow(step)

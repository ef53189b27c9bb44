"""Pairs (v, h) of a direction and the change of the gradient along it."""

from typing import Any

from ..closures.checks import LossFunction
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.needs import missing_input
from ..notation.signal import Signal
from ..notation.values import Leaves
from .hessian import _hvp_of

WHITENING_DAMPING = 2.0**-13
"""Of the noise that bounds a preconditioner which whitens: h = g + damping mean|g| v."""


@checked()
def given_or(given: Signal | None, drawn: Signal) -> Signal:
    """An optional input, where `update` was given it, else the other signal.

    A function of signals.
    """
    choose = lift_tree(lambda a, b: b if a is None else a, "given_or", out=1)
    return choose(given, drawn)


@checked()
def hessian_along(
    value_fn: Signal | None, ready: Signal | None, params: Signal, vector: Signal
) -> Signal:
    """H v, from the closure `value_fn`; or the product that is given as the input `hvp`.

    A function of signals.

    Args:
      value_fn: the input of that name, which may be missing where `hvp` is given.
      ready: the optional input `hvp`.
      params: the input `params`.
      vector: v.
    """
    return _along(value_fn, ready, params, vector)


def _product(
    context: Context, value_fn: LossFunction | None, ready: Any, params: Leaves, vector: Leaves
) -> Leaves:
    if ready is not None:
        return ready
    if value_fn is None:
        raise FlowError(missing_input(context.label, "value_fn"))
    return _hvp_of(context, value_fn, params, vector)


_along = lift_tree(
    _product,
    "hessian_along",
    context=True,
    out=lambda c, f, ready, params, v: v,
    needs=("value_fn",),
)

"""Operators of variational inequalities: gradients, negated where there is ascent."""

from typing import Any

from ..closures.gradient_at import field_at
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Mask
from ..notation.needs import missing_input
from ..notation.parts import merge, split
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def ascending(g: Signal, mask: Mask | None) -> Signal:
    """The gradient with the opposite sign at the leaves on which there is ascent.

    A function of signals.

    Args:
      g: a tree signal.
      mask: those leaves: a tree of booleans, or a function of the params; None: none.
    """
    if mask is None:
        return g
    up, down = split(g, mask)
    return merge(-up, down)


@checked()
def operator_at(point: Signal, operator_fn: Signal) -> Signal:
    """The worker's operator at a point, by the input `operator_fn` (params -> tree like them).

    A function of signals.

    Args:
      point: a tree signal like the params.
      operator_fn: the input of that name.
    """
    return _operator_at(point, operator_fn)


def _evaluated(context: Context, point: Leaves, fn: Any) -> Leaves:
    if fn is None:
        raise FlowError(missing_input(context.label, "operator_fn"))
    found = field_at(context, point, fn, "operator_fn")
    return point.map(lambda x, y: y.astype(x.dtype), found)


_operator_at = lift_tree(
    _evaluated,
    "operator_at",
    context=True,
    out=lambda context, point, fn: point,
    needs=("operator_fn",),
)

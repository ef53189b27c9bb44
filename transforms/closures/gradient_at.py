"""Gradients at other points than the params."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.build import Flow, flow
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.needs import missing_input
from ..notation.roots import saturated
from ..notation.signal import Input, Signal
from ..notation.values import Leaves, is_missing, working
from .checks import LossFunction, scalar_closure


@checked()
def gradient_at(
    point: Signal,
    value_fn: Signal | None = None,
    grad_fn: Signal | None = None,
    ready: Signal | None = None,
) -> Signal:
    """The gradient of this batch at another point, such as `params + delta`.

    A function of signals. A step that uses it has optional inputs of these names:

        def step(g, params, value_fn=None, grad_fn=None):
            return gradient_at(params - rate * g, value_fn, grad_fn)

    Args:
      point: a tree signal like the params. Where it has no leaf, the param is taken.
      value_fn: the input of that name, params -> loss, whose gradient is taken; needed unless one
        of the others is given.
      grad_fn: the input of that name, params -> gradient. In a game it is the vector field: every
        player's gradient of its own loss at the joint point, which is no gradient of one loss.
      ready: an input that is the gradient already, and is taken where it is given.

    Raises:
      ValueError: in update, without any of the functions, or where one of them returns what is no
        loss, or no gradient.
    """
    name = value_fn.name if isinstance(value_fn, Input) else "value_fn"
    taken = lift_tree(
        _gradient_of, "gradient_at", context=True, out=lambda c, at, *_: at, needs=(name,)
    )
    return taken(point, value_fn, grad_fn, ready, name=name)


def gradient_here() -> Flow:
    """The gradient at the params, whatever comes in.

    A transformation to send signals through.

    It stands at the head of what is run several times in a step; see `iterated`.
    """

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, grad_fn: Signal | None = None
    ) -> Signal:
        return gradient_at(params, value_fn, grad_fn)

    return flow(step)


def _gradient_of(
    context: Context,
    point: Leaves,
    value_fn: LossFunction | None,
    grad_fn: Callable[[optax.Params], optax.Updates] | None,
    ready: Any,
    name: str,
) -> Leaves:
    if ready is not None:
        return ready
    if grad_fn is not None:
        return field_at(context, point, grad_fn, "grad_fn")
    at = whole_point(context, point)
    if value_fn is not None:
        checked = scalar_closure(value_fn, at.tree(), context.label, name)
        found = at.map(
            lambda _, g: jnp.conj(g), Leaves.up_to(at.treedef, jax.grad(checked)(at.tree()))
        )
    else:
        raise FlowError(f"{missing_input(context.label, name)}, or grad_fn=...")
    return point.map(_entering, found)


def _entering(_: object, g: Any) -> Any:
    # Far out a loss may rise faster than numbers do; what follows counts on finite gradients.
    return saturated(working(g))


def whole_point(context: Context, point: Leaves) -> Leaves:
    """A point as a closure sees it: in the dtypes of the params, theirs where it has no leaf.

    A function of arrays.
    """
    given = context.whole
    assert given is not None
    pairs = zip(point.values, given.values, strict=True)
    return Leaves((p if is_missing(x) else x.astype(p.dtype) for x, p in pairs), given.treedef)


def field_at(context: Context, point: Leaves, fn: Any, name: str) -> Leaves:
    """What a function from params to a tree like them gives at a point; checked.

    A function of arrays.

    Args:
      context: of the running node.
      point: where.
      fn: the function.
      name: that of the input that it is.
    """
    if not callable(fn):
        raise FlowError(f"{context.label}: {name} must be a function of the params, {fn!r}")
    at = whole_point(context, point)
    returned = fn(at.tree())
    try:
        found = Leaves.up_to(at.treedef, returned)
    except (ValueError, TypeError, KeyError) as error:
        raise FlowError(
            f"{context.label}: {name} must return a tree like the params: {error}"
        ) from error
    for index, (g, p) in enumerate(zip(found.values, at.values, strict=True)):
        shape = getattr(g, "shape", type(g).__name__)
        if not is_missing(p) and shape != jnp.shape(p):
            raise FlowError(
                f"{context.label}: {name} returns shape {shape} for the param "
                f"{at.path(index)} of shape {jnp.shape(p)}"
            )
    return point.map(_entering, found)

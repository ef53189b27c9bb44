"""Projections of signals, and of the params that an optimizer leads to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import optax

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.signal import Signal
from ..notation.values import Leaves

Projection: TypeAlias = (
    Callable[[Any], optax.Params]
    | Mapping[str, "Projection | None"]
    | Sequence["Projection | None"]
)
"""A function from a whole tree to the nearest one in a set, or a tree of such functions."""


@checked()
def onto(projection: Projection | None, point: Signal) -> Signal:
    """The projection of a tree signal.

    A function of signals.

    Args:
      projection: a function from the whole tree to the nearest tree of a set (see `sets`), or a
        tree of such functions, one for each part of the point; None leaves it, or its part, alone.
      point: a tree signal.
    """
    if projection is None:
        return point

    def projected(context: Context, tree: Leaves) -> Leaves:
        return Leaves.up_to(tree.treedef, _applied(context.label, projection, tree.tree()))

    return lift_tree(projected, "projection", context=True, out=0)(point)


@checked()
def check_projection(label: str, projection: object) -> None:
    """Raises FlowError for what is neither a function, nor a tree of functions, nor None.

    A check of an argument.
    """
    parts = jax.tree.leaves(projection, is_leaf=callable)
    if not all(callable(part) for part in parts):
        raise FlowError(
            f"{label}: projection={projection!r} must be a function from a tree of points to the "
            "nearest tree in a set, or a tree of such functions"
        )


def _applied(label: str, projection: Any, point: optax.Params) -> optax.Params:
    if callable(projection):
        return projection(point)
    try:
        return jax.tree.map(
            lambda part, x: x if part is None else part(x),
            projection,
            point,
            is_leaf=lambda part: part is None or callable(part),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise FlowError(f"{label}: the tree of projections does not fit: {error}") from error


@transformation()
def keep_params_in(projection: Projection) -> Flow:
    """Leads the params to the nearest point of a set; put it at the end of any optimizer.

    A transformation to send signals through.

        u <- Pi(x + u) - x

    Args:
      projection: a set, or a tree of sets; see `onto`.

    Raises:
      ValueError: for what is no projection.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgd
      >>> from gradchain.transforms import chain
      >>> from gradchain.transforms.projections import box, keep_params_in
      >>> opt = chain(sgd(1.0), keep_params_in(box(-1.0, 1.0)))
      >>> params = jnp.array([0.5])
      >>> opt.update(jnp.array([-4.0]), opt.init(params), params)[0].tolist()
      [0.5]
    """
    check_projection("keep_params_in", projection)

    def step(u: Signal, params: Signal) -> Signal:
        return onto(projection, params + u) - params

    return flow(step)

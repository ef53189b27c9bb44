"""Parameters that the training loop does not see: the true weights of a method."""

import dataclasses
from typing import Any

import optax

from ..notation.cell import Cell, cell_of
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.receiver import Receiver, through
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def at_params(
    params: Signal, inner: optax.GradientTransformation, *, name: str | None = None
) -> Receiver:
    """Shows a transformation other params than the loop's: `g >> at_params(weights, inner)`.

    A transformation to send signals through.

    They are its `params` in every respect: its weight decay acts on them, and closures such as
    `value_fn` are evaluated at them.

    Args:
      params: the signal that it is shown.
      inner: any transformation.
      name: name of its state.
    """
    return through("at_params", _shown_other_params(inner), params, name=name)


def elsewhere(context: Context, at: Leaves) -> Context:
    """The surroundings of a transformation that is shown other params."""
    return dataclasses.replace(context, params=at, given=at)


def _shown_other_params(inner: optax.GradientTransformation) -> Cell:
    cell = cell_of(inner)

    def init(context: Context, value: Leaves, at: Leaves) -> optax.OptState:
        return cell.init(context, value)

    def run(context: Context, state: Any, value: Leaves, at: Leaves) -> tuple[Any, Any]:
        return cell.update(elsewhere(context, at), state, value)

    def out(context: Context, value: Leaves, at: Leaves) -> Leaves:
        return cell.out(context, value) if cell.out else value

    def rebuilt(children: tuple[Any, ...]) -> Cell:
        return _shown_other_params(*children)

    return dataclasses.replace(
        cell,
        init=init,
        update=run,
        out=out,
        needs=tuple(name for name in cell.needs if name != "params"),
        children=cell.children or (inner,),
        inside=cell.inside if cell.children else None,
        rebuild=cell.rebuild and rebuilt,
    )

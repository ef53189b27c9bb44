"""Reading the momentum of an inner transformation beside its updates."""

from collections.abc import Callable
from typing import Any

import optax

from ..control.prediction import elsewhere
from ..notation.cell import Cell, cell_of
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.receiver import Receiver, through
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def with_momentum(
    inner: optax.GradientTransformation,
    momentum_fn: Callable[[Any], optax.Params],
    params: Signal | None = None,
    *,
    name: str | None = None,
) -> Receiver:
    """Pairs of the updates of a transformation and its momentum: `g >> with_momentum(inner, fn)`.

    A transformation to send signals through.

    Args:
      inner: any transformation that keeps a momentum.
      momentum_fn: from its state to the momentum, a tree like the params.
      params: the signal that it is shown as params; default those of the loop.
      name: name of its state.
    """
    shown = () if params is None else (params,)
    return through("with_momentum", _paired(inner, momentum_fn), *shown, name=name)


def _paired(
    inner: optax.GradientTransformation, momentum_fn: Callable[[Any], optax.Params]
) -> Cell:
    cell = cell_of(inner)

    def init(context: Context, value: Leaves, *_: object) -> optax.OptState:
        return cell.init(context, value)

    def update(
        context: Context, state: Any, value: Leaves, *params: Leaves
    ) -> tuple[Leaves, optax.OptState]:
        for shown in params:
            context = elsewhere(context, shown)
        out, new = cell.update(context, state, value)
        momentum = Leaves.up_to(out.treedef, momentum_fn(new))
        return out.map(lambda u, s: (u, s.astype(u.dtype)), momentum), new

    return Cell(
        cell.name,
        init,
        update,
        lambda context, value, *_: value.map(lambda leaf: (leaf, leaf)),
        cell.needs,
        cell.arguments,
        children=(inner,),
        stateless=cell.stateless,
        inside=lambda state: (state,),
        rebuild=lambda children: _paired(children[0], momentum_fn),
    )

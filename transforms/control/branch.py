"""Choosing between transformations at run time, and applying one to some of the leaves."""

from typing import Any

import jax
import optax

from ..notation.build import Flow, flow
from ..notation.cell import Cell, cell_of
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.functions import zeros_like
from ..notation.hyperparameters import Mask
from ..notation.known import is_known
from ..notation.layout import make_state
from ..notation.packing import choose_leaves, in_stacks
from ..notation.parts import merge, split
from ..notation.receiver import Receiver, through
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def either(
    condition: Signal,
    first: optax.GradientTransformation,
    second: optax.GradientTransformation,
    *,
    name: str | None = None,
) -> Receiver:
    """One of two transformations, which a condition chooses: `g >> either(condition, a, b)`.

    A transformation to send signals through.

    The other costs nothing and keeps its state. Both must give the same shapes.

    Args:
      condition: a boolean scalar signal: `first` where it holds, else `second`.
      first: any transformation.
      second: any transformation.
      name: name of their state.
    """
    return through("either", _branches((first, second)), condition, name=name)


def _branches(children: tuple[Any, ...]) -> Cell:
    first, second = cells = tuple(map(cell_of, children))

    def init(context: Context, value: Leaves, condition: jax.Array) -> optax.OptState:
        states = [cell.init(context, value) for cell in cells]
        return make_state("EitherState", dict(zip(("first", "second"), states, strict=True)))

    def run(context: Context, state: Any, value: Leaves, condition: jax.Array) -> tuple[Any, Any]:
        if not is_known(condition):
            state, value = in_stacks((state, value), value.treedef)

        def taken() -> Any:
            out, new = first.step(context, state.first, value)
            return out, state._replace(first=new)

        def other() -> Any:
            out, new = second.step(context, state.second, value)
            return out, state._replace(second=new)

        check = any(cell.may_refuse(context) for cell in cells)
        return choose_leaves(condition, taken, other, check_both=check, treedef=value.treedef)

    def out(context: Context, value: Leaves, condition: jax.ShapeDtypeStruct) -> Leaves:
        return first.out(context, value) if first.out else value

    needs = tuple(dict.fromkeys((*first.needs, *second.needs)))
    return Cell(
        f"either_{first.name}",
        init,
        run,
        out,
        needs,
        children=children,
        inside=lambda state: (state.first, state.second),
        rebuild=_branches,
        takes_stacks=True,
    )


@transformation()
def on_leaves(select: Mask | None, inner: optax.GradientTransformation) -> Flow:
    """Applies a transformation to the selected leaves alone; the others are not moved.

    A transformation to send signals through.

    Unlike under `optax.masked`, whose other leaves leave as they came: as raw gradients.

    Args:
      select: the leaves that take part: a tree of booleans, or a function of the params; None: all.
      inner: any transformation.
    """
    if select is None:
        return flow(lambda g: g >> inner)

    def step(g: Signal) -> Signal:
        chosen, others = split(g, select)
        return merge(chosen >> inner, zeros_like(others))

    return flow(step)

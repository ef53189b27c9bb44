"""Outputs that are held while the transformation that gives them rests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from ..notation.cell import Cell, cell_of
from ..notation.context import Context
from ..notation.foreign import owner_of
from ..notation.known import is_known
from ..notation.packing import choose_leaves, in_leaves, in_stacks
from ..notation.plain import restored
from ..notation.signal import CellNode, Signal
from ..notation.steps import delay, step_count
from ..notation.values import Leaves
from .held import Beside, memory_of, shapes_of


@dataclass(frozen=True)
class Holding(Cell):
    """A cell that holds its output until its second argument says that it is another one.

    Attributes:
      paired: the same cell that gives pairs: the output of the step before, zeros at first, and
        that of this step.
    """

    paired: Callable[[], Cell] | None = None


def changes(signal: Signal) -> Signal:
    """Whether a signal may be another one than at the step before, as a boolean scalar signal.

    A function of signals.

    What `every` and `when` give is the same as before where they rest; of anything else it is not
    known, and it counts as another one at every step.
    """
    if isinstance(signal, CellNode) and isinstance(signal.cell, Holding):
        condition: Signal = signal.args[1]
        return condition
    return step_count() > 0


def with_previous(signal: Signal) -> tuple[Signal, Signal]:
    """A tree signal of the step before, zeros at first, and that of this step.

    A function of signals.

    What `every` and `when` give is in their state, so that nothing is stored twice.
    """
    if not (isinstance(signal, CellNode) and isinstance(signal.cell, Holding)):
        past = delay(signal, name="previous")
        past << signal
        return past, signal
    assert signal.cell.paired is not None
    both = signal.with_cell(signal.cell.paired())
    return both[0], both[1]


def holding(inner: optax.GradientTransformation, paired: bool = False) -> Holding:
    """The cell of `when` that holds its output, with the condition as its second argument."""
    cell = cell_of(inner)
    memory, program = memory_of(inner, cell), owner_of(inner)
    is_leafwise = program is not None and program.is_leafwise

    def run(
        context: Context, state: Any, value: Leaves, condition: jax.Array
    ) -> tuple[Leaves, optax.OptState]:
        before = state
        shapes: list[Leaves] = []

        def due() -> Any:
            out, new = cell.step(context, memory.inner(state), value)
            shapes.append(shapes_of(out))
            return memory.join(out, new, state)

        if is_leafwise and isinstance(memory, Beside) and not is_known(condition):
            assert cell.out is not None
            shapes.append(cell.out(context, value))
            state = memory.renewed(context, in_leaves(state), value, condition)
        else:
            if not is_known(condition):
                state, value = in_stacks((state, value), value.treedef)
            check = cell.may_refuse(context)
            state = choose_leaves(
                condition, due, lambda: state, check_both=check, treedef=value.treedef
            )
        if not shapes:  # without jit, the branch that is not taken is not traced either
            shapes.append(cell.out(context, value) if cell.out else value)
        shape = shapes[0]
        held = restored(memory.output(state, shape.treedef), shape)
        if not paired:
            return held, state
        last = restored(memory.output(before, shape.treedef), shape)
        return last.map(_in_pairs, held), state

    def init(context: Context, value: Leaves, condition: jax.Array) -> optax.OptState:
        return memory.init(context, value)

    def out(context: Context, value: Leaves, condition: jax.ShapeDtypeStruct) -> Leaves:
        shape = cell.out(context, value) if cell.out else value
        return shape.map(_in_pairs, shape) if paired else shape

    return Holding(
        cell.name,
        init,
        run,
        out,
        cell.needs,
        children=(inner,),
        inside=lambda state: (memory.inner(state),),
        rebuild=lambda children: holding(children[0], paired),
        bound=None if program is None else program.graph.bound_of_output,
        paired=lambda: holding(inner, paired=True),
        takes_stacks=True,
    )


def _in_pairs(old: Any, new: Any) -> tuple[Any, Any]:
    return old, new

"""Running a transformation only at some steps."""

from typing import Any

import jax
import optax

from ..notation.build import Flow, flow
from ..notation.cell import Cell, cell_of
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.crowds import parts_by_place
from ..notation.functions import lift
from ..notation.hyperparameters import Count, Hyperparameter, Period, Step
from ..notation.known import is_known
from ..notation.members import inside_shard_map
from ..notation.packing import choose_leaves, in_stacks, tiny_crowds
from ..notation.receiver import Receiver, through
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.storage import filled
from ..notation.values import Leaves
from .held import shapes_of
from .holding import holding


@transformation()
def every(
    k: Period,
    inner: optax.GradientTransformation,
    *,
    phase: Count = 1,
    start: Step = 1,
    also_first: bool = False,
) -> Flow:
    """Runs a transformation each k-th step and holds its last output in between.

    A transformation to send signals through.

    It runs at the steps t >= start with t = phase (mod k). In between its state is frozen, and it
    costs nothing: the two cases are branches of a `lax.cond`. Before the first run it gives zeros.
    An output that the inner state holds anyway, as that of an `ema`, is not stored twice.

    Args:
      k: period in steps.
      inner: any transformation.
      phase: 1 runs at t = 1, k + 1, ...; 0 at t = k, 2k, ...
      start: first step at which it may run.
      also_first: it runs at the first step, too: with phase=0 at t = 1, k, 2k, ...
    """
    if isinstance(k, int) and k == 1 and start == 1:
        return flow(lambda g: g >> inner)

    def step(g: Signal) -> Signal:
        due = lift(is_due, "due")(step_count(), k, phase, start)
        return g >> when((step_count() == 1) | due if also_first else due, inner)

    return flow(step)


def is_due(
    t: jax.Array, k: int | jax.Array, phase: int | jax.Array, start: int | jax.Array
) -> jax.Array:
    """Whether step t >= start is one with t = phase (mod k)."""
    return (t % k == phase % k) & (t >= start)


@checked()
def when(
    condition: Signal,
    inner: optax.GradientTransformation,
    *,
    otherwise: Hyperparameter | None = None,
    name: str | None = None,
) -> Receiver:
    """Runs a transformation only where a condition holds: `g >> when(condition, inner)`.

    A transformation to send signals through.

    See `every`.

    Args:
      condition: a boolean scalar signal.
      inner: any transformation; its state is frozen while the condition does not hold.
      otherwise: number that every entry of the output then is; default its last output, held.
      name: name of its state.
    """
    cell = holding(inner) if otherwise is None else resting(inner, otherwise)
    return through("when", cell, condition, name=name)


def resting(inner: optax.GradientTransformation, otherwise: Any) -> Cell:
    """The cell of `when`, with the condition as its second argument."""
    cell = cell_of(inner)

    def run(
        context: Context, state: Any, value: Leaves, condition: jax.Array
    ) -> tuple[Leaves, optax.OptState]:
        if not is_known(condition):
            state, value = in_stacks((state, value), value.treedef)

        shapes: list[Leaves] = []

        def due() -> tuple[Leaves, optax.OptState]:
            out, new = cell.step(context, state, value)
            shapes.append(shapes_of(out))
            return out, new

        def rest() -> tuple[Leaves, optax.OptState]:
            if not shapes:  # without jit, the branch that is not taken is not traced either
                shapes.append(cell.out(context, value) if cell.out else shapes_of(value))
            return _constant(shapes[0], otherwise), state

        check = cell.may_refuse(context)
        return choose_leaves(condition, due, rest, check_both=check, treedef=value.treedef)

    def out(context: Context, value: Leaves, condition: jax.ShapeDtypeStruct) -> Leaves:
        return cell.out(context, value) if cell.out else value

    return Cell(
        cell.name,
        lambda context, value, condition: cell.init(context, value),
        run,
        out,
        cell.needs,
        children=(inner,),
        stateless=cell.stateless,
        inside=lambda state: (state,),
        rebuild=lambda children: resting(children[0], otherwise),
        takes_stacks=True,
    )


def _constant(shapes: Leaves, number: Any) -> Leaves:
    """Leaves of these shapes with every entry that number, tiny ones that are many as stacks."""

    def of(leaf: Any, *stacked: int) -> Any:
        def array(x: Any) -> jax.Array:
            like = jax.ShapeDtypeStruct((*stacked, *x.shape), x.dtype) if stacked else x
            return filled(like, number)

        return jax.tree.map(array, leaf)

    is_spread = any(getattr(x, "sharding", None) for x in jax.tree.leaves(shapes.held))
    crowds = () if is_spread or inside_shard_map() else tiny_crowds(shapes)
    found: dict[int, Any] = dict(
        parts_by_place({where: of(shapes.held[where[0]], len(where)) for where in crowds})
    )
    return Leaves(
        (found[i] if i in found else of(leaf) for i, leaf in enumerate(shapes.held)), shapes.treedef
    )

"""Starting the state of a transformation anew at some steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.build import Flow, flow
from ..notation.cell import Cell
from ..notation.checks import checked, transformation
from ..notation.compose import as_flow, named
from ..notation.context import Context
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Count, Period, Step
from ..notation.receiver import Receiver
from ..notation.signal import CellNode, Delay, Signal
from ..notation.splicing import Reader
from ..notation.steps import delay, step_count
from ..notation.storage import example, started
from ..notation.values import Leaves
from .held import shapes_of
from .periods import is_due


@transformation()
def reset_every(
    k: Period, inner: optax.GradientTransformation, *, phase: Count = 1, start: Step = 2
) -> Flow:
    """Runs a transformation whose state starts anew each k-th step, before that step is computed.

    A transformation to send signals through.

    The step count goes on. A reset happens at the steps t >= start with t = phase (mod k).

    Args:
      k: period in steps.
      inner: any transformation; see `reset_when`.
      phase: 1 resets before the steps k + 1, 2k + 1, ...
      start: first step at which it may happen.
    """

    def step(g: Signal) -> Signal:
        due = lift(is_due, "due")(step_count(), k, phase, start)
        return g >> reset_when(due, inner)

    return flow(step)


@checked()
def reset_when(
    condition: Signal,
    inner: optax.GradientTransformation,
    *,
    restart_count: bool = False,
    name: str | None = None,
) -> Receiver:
    """Starts a state anew wherever a condition holds: `g >> reset_when(condition, inner)`.

    A transformation to send signals through.

    The delays of a flow read as at the start, and those that start at values made in `init` as it
    would make them of the present params. So does the floating-point state of other
    transformations, inside a flow or in its place.

    Args:
      condition: a boolean scalar signal.
      inner: any transformation.
      restart_count: the step count (of other transformations, all integers) starts anew, too, so
        that averages are debiased by the number of steps since the reset.
      name: name of its state.
    """

    def send(g: Signal, name: str | None) -> Signal:
        program = (as_flow(inner) if name is None else named(name, inner)).own_program
        count = steps_since(condition) if restart_count else None
        return program.receive(g, restarting(condition, restart_count), count)

    return Receiver("reset_when", send, name)


def restarting(condition: Signal, restart_count: bool) -> Reader:
    """What the nodes of a flow read that starts anew; see `reset_when` and `splice`."""

    def read(past: Delay | CellNode, copy: Any) -> Signal:
        if isinstance(past, CellNode):
            if past.cell.stateless:
                return CellNode(past.cell, copy.args, copy.hint, copy.explicit)
            cell = _restarting(past.cell, restart_count)
            return CellNode(cell, (*copy.args, condition), copy.hint, copy.explicit)
        return lift(_reset, "reset")(condition, _start_of(past, copy), copy)

    return read


def steps_since(condition: Signal) -> Signal:
    """The number of this step since the condition held: 1 where it does."""
    since = delay(0, name="steps_since_reset")
    count = lift(lambda due, n: jnp.where(due, 1, n + 1), "count")(condition, since)
    return since << count


def _restarting(cell: Cell, with_integers: bool) -> Cell:
    """The cell with a last argument that says whether its state starts anew."""
    kinds = (jnp.inexact, jnp.signedinteger) if with_integers else (jnp.inexact,)

    def run(context: Context, state: Any, *values: Any) -> tuple[Any, Any]:
        *inputs, due = values
        fresh = cell.init(context, *(_example(context, value) for value in inputs))

        def chosen(old: Any, new: Any) -> Any:
            starts = any(jnp.issubdtype(old.dtype, kind) for kind in kinds)
            return jnp.where(due, new.astype(old.dtype), old) if starts else old

        return cell.update(context, jax.tree.map(chosen, state, fresh), *inputs)

    return cell.given_more(1, run, lambda other: _restarting(other, with_integers))


def _example(context: Context, value: Any) -> Any:
    if not isinstance(value, Leaves):
        return value
    params = context.params_like(value)
    return value.map(lambda leaf: jax.tree.map(jnp.zeros_like, leaf)) if params is None else params


def _start_of(past: Delay, copy: Delay) -> Any:
    """What the delay starts at: a number for all entries, or a signal."""
    if not isinstance(past.like, Signal):
        return past.like() if callable(past.like) else past.like
    if not callable(past.start):
        return copy.like if past.of_params and past.start is None else past.start or 0

    def start(context: Context, like: Leaves) -> Leaves:
        return started(past, example(shapes_of(like), context))

    return lift_tree(start, "start", context=True, out=0)(copy.like)


def _reset(due: jax.Array, start: object, old: optax.Params) -> optax.Params:
    structure: jax.tree_util.PyTreeDef = jax.tree.structure(old)
    starts = start if structure == jax.tree.structure(start) else None
    if starts is None:
        starts = jax.tree.map(lambda x: start, old)
    return jax.tree.map(lambda x, y: jnp.where(due, jnp.asarray(x, y.dtype), y), starts, old)

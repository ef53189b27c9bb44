"""Running a transformation only at some steps, and starting it anew at others."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.annotations import unboxed
from ..notation.build import Flow, flow
from ..notation.cell import Cell, cell_of
from ..notation.checks import checked, transformation
from ..notation.compose import as_flow, named
from ..notation.context import Context
from ..notation.crowds import crowds, is_crowded, parts_by_place
from ..notation.foreign import owner_of
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Count, Hyperparameter, Period, Step
from ..notation.known import choose, is_known
from ..notation.layout import Group, make_state
from ..notation.members import inside_shard_map
from ..notation.packing import choose_leaves, in_leaves, in_stacks, tiny_crowds
from ..notation.plain import restored
from ..notation.receiver import Receiver, through
from ..notation.sharding import explicit_axes
from ..notation.signal import CellNode, Delay, Signal
from ..notation.splicing import Reader
from ..notation.stacks import TINY
from ..notation.steps import delay, step_count
from ..notation.storage import example, filled, replaced, started, stored, zeros
from ..notation.values import MISSING, Leaves, NoState, is_missing

BRANCHES = 8
"""About so many there are for what is held: each costs some microseconds at every step."""


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
        due = lift(_is_due, "due")(step_count(), k, phase, start)
        return g >> when((step_count() == 1) | due if also_first else due, inner)

    return flow(step)


def _is_due(
    t: jax.Array, k: int | jax.Array, phase: int | jax.Array, start: int | jax.Array
) -> jax.Array:
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
    cell = _holding(inner) if otherwise is None else resting(inner, otherwise)
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
            shapes.append(_shapes_of(out))
            return out, new

        def rest() -> tuple[Leaves, optax.OptState]:
            if not shapes:  # without jit, the branch that is not taken is not traced either
                shapes.append(cell.out(context, value) if cell.out else _shapes_of(value))
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


def _holding(inner: optax.GradientTransformation, paired: bool = False) -> Holding:
    cell = cell_of(inner)
    memory, program = _memory_of(inner, cell), owner_of(inner)
    is_leafwise = program is not None and program.is_leafwise

    def run(
        context: Context, state: Any, value: Leaves, condition: jax.Array
    ) -> tuple[Leaves, optax.OptState]:
        before = state
        shapes: list[Leaves] = []

        def due() -> Any:
            out, new = cell.step(context, memory.inner(state), value)
            shapes.append(_shapes_of(out))
            return memory.join(out, new, state)

        if is_leafwise and isinstance(memory, _Beside) and not is_known(condition):
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
        rebuild=lambda children: _holding(children[0], paired),
        bound=None if program is None else program.graph.bound_of_output,
        paired=lambda: _holding(inner, paired=True),
        takes_stacks=True,
    )


def _shapes_of(tree: Leaves) -> Leaves:
    return Leaves((_abstract(tree.abstract(i)) for i in range(len(tree))), tree.treedef)


def _in_pairs(old: Any, new: Any) -> tuple[Any, Any]:
    return old, new


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


def _abstract(leaf: Any) -> Any:
    return jax.tree.map(_abstract_array, leaf)


def _abstract_array(x: Any) -> jax.ShapeDtypeStruct:
    is_explicit = not isinstance(x, jax.ShapeDtypeStruct) and explicit_axes(x)
    sharding = jax.typeof(x).sharding if is_explicit else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _memory_of(inner: optax.GradientTransformation, cell: Cell) -> "_Beside | _InState":
    """How the held output is kept: by a delay of the inner flow that holds just that, or beside."""
    program = owner_of(inner)
    for node in () if program is None else program.graph.slots:
        if isinstance(node, Delay) and node.written is program.graph.output and node.dtype is None:
            return _InState(program.layout, cell, node)
    return _Beside(cell)


class _InState:
    """The held output is part of the inner state."""

    def __init__(self, layout: Group, cell: Cell, node: Delay) -> None:
        self.layout, self.cell, self.node = layout, cell, node

    def init(self, context: Context, value: Leaves) -> optax.OptState:
        return self.cell.init(context, value)

    def inner(self, state: Any) -> Any:
        return state

    def join(self, out: Leaves, new: Any, state: Any) -> Any:
        return new

    def output(self, state: Any, treedef: jax.tree_util.PyTreeDef) -> Leaves:
        found: dict[int, Any] = {}
        self.layout.unpack(state, found)
        return unboxed(treedef, found[self.node.index])


class _Beside:
    """The held output is kept next to the inner state."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def init(self, context: Context, value: Leaves) -> optax.OptState:
        shape = self.cell.out(context, value) if self.cell.out else value
        held = stored(zeros(shape), context)
        inner = self.cell.init(context, value)
        if self.cell.stateless or isinstance(inner, NoState):
            return make_state("HeldState", {"output": held})
        return make_state("HeldState", {"output": held, "inner": inner})

    def inner(self, state: Any) -> Any:
        return getattr(state, "inner", NoState())

    def join(self, out: Leaves, new: Any, state: Any) -> Any:
        fields = {"output": replaced("output", out, state.output), "inner": new}
        return state._replace(**{name: fields[name] for name in state._fields})

    def output(self, state: Any, treedef: jax.tree_util.PyTreeDef) -> Leaves:
        return unboxed(treedef, state.output)

    def renewed(self, context: Context, state: Any, value: Leaves, condition: jax.Array) -> Any:
        """The state after a step that does every leaf by itself and stores nothing else.

        A few leaves have a branch of their own, so that what they work with is given back before
        the next; those that are alike are traced once, and tiny ones are computed together.
        """
        held = self.output(state, value.treedef)

        @jax.jit
        def made_of(*leaves: jax.Array) -> list[list[jax.Array]]:
            alone = Leaves(leaves, jax.tree.structure(leaves))
            out, _ = self.cell.update(context, NoState(), alone)
            return [jax.tree.leaves(leaf) for leaf in out.values]

        found = [jax.tree.leaves(leaf) for leaf in held.values]
        for branch in _branches(value):
            olds = [found[i] for where in branch for i in where]
            rows = [[value.values[i] for i in where] for where in branch]

            def new(rows: Any = rows, olds: Any = olds) -> list[list[jax.Array]]:
                news = [leaf for row in rows for leaf in made_of(*row)]
                return jax.tree.map(lambda x, y: x.astype(y.dtype), news, olds)

            renewed = iter(choose(condition, new, lambda olds=olds: olds))
            for where in branch:
                for i in where:
                    found[i] = next(renewed)
        structure = jax.tree.structure(state.output)
        return state._replace(output=jax.tree.unflatten(structure, jax.tree.leaves(found)))


def _branches(value: Leaves) -> list[list[list[int]]]:
    """The places of the leaves that are computed together, by the branch in which they are."""
    tiny = [x if not is_missing(x) and x.size <= TINY else MISSING for x in value.values]
    together = crowds(tiny) if is_crowded(tiny) else []
    taken = {i for where in together for i in where}
    sizes = {i: x.size for i, x in enumerate(value.values) if not is_missing(x) and i not in taken}
    branches: list[list[list[int]]] = [[list(where) for where in together]] if together else []
    room = 0.0
    for i, size in sizes.items():
        if size > room:
            branches.append([])
            room = sum(sizes.values()) / BRANCHES
        branches[-1].append([i])
        room -= size
    return branches


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
        due = lift(_is_due, "due")(step_count(), k, phase, start)
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
            return jnp.where(due, new, old).astype(old.dtype) if starts else old

        return cell.update(context, jax.tree.map(chosen, state, fresh), *inputs)

    def out(context: Context, *values: Any) -> Any:
        return cell.out(context, *values[:-1]) if cell.out else values[0]

    rebuild = cell.rebuild
    return replace(
        cell,
        init=lambda context, *examples: cell.init(context, *examples[:-1]),
        update=run,
        out=out,
        rebuild=rebuild and (lambda children: _restarting(rebuild(children), with_integers)),
    )


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
        return started(past, example(like.map(_abstract), context))

    return lift_tree(start, "start", context=True, out=0)(copy.like)


def _reset(due: jax.Array, start: object, old: optax.Params) -> optax.Params:
    structure: jax.tree_util.PyTreeDef = jax.tree.structure(old)
    starts = start if structure == jax.tree.structure(start) else None
    if starts is None:
        starts = jax.tree.map(lambda x: start, old)
    return jax.tree.map(lambda x, y: jnp.where(due, jnp.asarray(x, y.dtype), y), starts, old)

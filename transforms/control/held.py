"""Where a held output is kept: in the state of the flow that gives it, or beside it."""

from typing import Any

import jax
import optax

from ..notation.annotations import unboxed
from ..notation.cell import Cell
from ..notation.context import Context
from ..notation.crowds import crowds, is_crowded
from ..notation.foreign import owner_of
from ..notation.known import choose
from ..notation.layout import Group, make_state
from ..notation.shapes import abstract
from ..notation.signal import Delay
from ..notation.stacks import TINIER
from ..notation.storage import replaced, stored, zeros
from ..notation.values import MISSING, Leaves, NoState, is_missing

BRANCHES = 8
"""About so many there are for what is held: each costs some microseconds at every step."""


def shapes_of(tree: Leaves) -> Leaves:
    """The leaves without their entries."""
    leaves = (jax.tree.map(abstract, tree.abstract(i)) for i in range(len(tree)))
    return Leaves(leaves, tree.treedef)


def memory_of(inner: optax.GradientTransformation, cell: Cell) -> "Beside | InState":
    """How the held output is kept: by a delay of the inner flow that holds just that, or beside."""
    program = owner_of(inner)
    for node in () if program is None else program.graph.slots:
        if isinstance(node, Delay) and node.written is program.graph.output and node.dtype is None:
            return InState(program.layout, cell, node)
    return Beside(cell)


class InState:
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


class Beside:
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
    tiny = [x if not is_missing(x) and x.size <= TINIER else MISSING for x in value.values]
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

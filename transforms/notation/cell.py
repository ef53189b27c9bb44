"""Nodes with a hand-written state, and any transformation as such a node."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optax

from .context import Context
from .foreign import (
    closed_over,
    foreign_name,
    owner_of,
    parts_of,
    state_without_arrays,
    update_with_extra,
)
from .packing import in_leaves
from .values import Leaves, NoState, working


@dataclass(frozen=True)
class Cell:
    """A node whose state is written by hand, as the cell of a recurrent network.

    Attributes:
      name: what it is called, and the default name of its state.
      init: `(context, *examples) -> state`. Examples are the params where the signal is shaped
        like them, else zeros or abstract values; nothing may be computed from their entries.
      update: `(context, state, *values) -> (value, new state)`.
      out: `(context, *abstract values) -> abstract value`; default that of the first argument.
      needs: inputs that `update` must be given.
      arguments: hyper-parameters, for tables and drawings.
      children: transformations inside, for tables and drawings.
      stateless: True when there is nothing to store.
      inside: `state -> states of the children`; None where they cannot be told apart.
      rebuild: `children -> Cell`: the same node around other versions of its children, such as
        observed ones; None where that is not possible.
      sent: `(context, *abstract values) -> bytes`: what a worker sends to the others in a step.
      bound: `() -> Bound`: what is known of the value without computing it; None: nothing.
      takes_stacks: whether leaves of its state may be parts of stacks, see `in_stacks`.
    """

    name: str
    init: Callable[..., Any]
    update: Callable[..., Any]
    out: Callable[..., Any] | None = None
    needs: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Any, ...] = ()
    stateless: bool = False
    inside: Callable[[Any], tuple[Any, ...]] | None = None
    rebuild: Callable[[tuple[Any, ...]], "Cell"] | None = None
    sent: Callable[..., float] | None = None
    bound: Callable[[], Any] | None = None
    takes_stacks: bool = False

    def step(self, context: Context, state: Any, *values: Any) -> tuple[Any, Any]:
        """`update`, of a state whose leaves may be parts of stacks."""
        return self.update(context, state if self.takes_stacks else in_leaves(state), *values)

    def may_refuse(self, context: Context) -> bool:
        """Whether what this step is given may be wrong for the cell: inputs, closures."""
        return any(name != "params" or context.given is None for name in self.needs)

    def given_more(
        self, count: int, update: Callable[..., Any], again: Callable[["Cell"], "Cell"]
    ) -> "Cell":
        """The cell with that many last arguments more, which its start and output do not see.

        Args:
          count: how many.
          update: in place of the cell's, with these arguments.
          again: what makes such a cell of one around other versions of the children.
        """
        out, rebuild = self.out, self.rebuild

        def out_of_own(context: Context, *values: Any) -> Any:
            return out(context, *values[:-count]) if out else values[0]

        return replace(
            self,
            init=lambda context, *examples: self.init(context, *examples[:-count]),
            update=update,
            out=out_of_own,
            rebuild=rebuild and (lambda children: again(rebuild(children))),
        )

    def named_children(self) -> dict[str, Any]:
        """The children by name: an only one needs none."""
        if len(self.children) == 1:
            return {"": self.children[0]}
        found: dict[str, Any] = {}
        for child in self.children:
            name = unique = cell_of(child).name
            number = 1
            while unique in found:
                number += 1
                unique = f"{name}_{number}"
            found[unique] = child
        return found


def cell_of(transformation: optax.GradientTransformation) -> Cell:
    """Any transformation as a node that runs as a whole."""
    foreign = owner_of(transformation) is None
    return foreign_cell(transformation) if foreign else flow_cell(transformation)


def foreign_cell(transformation: optax.GradientTransformation) -> Cell:
    """The node for a transformation of which only `init` and `update` are known.

    It is handed what `optax.chain` would hand it: the updates, its state, the params where the
    updates are shaped like them, and the extra inputs as `update` was given them.
    """
    update = update_with_extra(transformation)
    nothing = state_without_arrays(transformation)

    def init_state(context: Context, example: Leaves) -> Any:
        return transformation.init(example.tree()) if nothing is None else NoState()

    def run(context: Context, state: Any, value: Leaves) -> tuple[Leaves, optax.OptState]:
        params = context.params_like(value)
        tree = None if params is None else params.map(working).tree()
        old = state if nothing is None else nothing
        updates, new = update(value.tree(), old, tree, **context.extra)
        return Leaves.up_to(value.treedef, updates), new if nothing is None else state

    return Cell(
        foreign_name(transformation),
        init_state,
        run,
        needs=getattr(transformation, "needs", ()),
        arguments=closed_over(transformation.update),
        children=parts_of(transformation),
        stateless=nothing is not None,
        inside=lambda state: tuple(state if nothing is None else nothing),
    )


def flow_cell(flow: optax.GradientTransformation) -> Cell:
    """The node for a flow that runs as a whole: held, stacked or projected."""
    program = owner_of(flow)

    def init(context: Context, example: Leaves) -> optax.OptState:
        return program.init_on(example, context.params_like(example), context)

    def run(context: Context, state: Any, value: Leaves) -> tuple[Any, Any]:
        return program.run(value, state, context.params_like(value), context.extra, context)

    return Cell(
        program.name,
        init,
        run,
        out=lambda context, shape: program.output_shape(shape),
        needs=program.needs,
        arguments=program.arguments,
        children=(flow,),
        stateless=program.is_stateless,
        inside=lambda state: (state,),
        rebuild=lambda children: cell_of(*children),
        takes_stacks=True,
    )

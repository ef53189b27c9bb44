"""Optax transformations, and anybody's, as nodes of a flow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from .values import Leaves, working

if TYPE_CHECKING:
    from .run import Context


@dataclass(frozen=True)
class Kernel:
    """A node whose state is written by hand.

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
    """

    name: str
    init: Callable[..., Any]
    update: Callable[..., Any]
    out: Callable[..., Any] | None = None
    needs: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Any, ...] = ()
    stateless: bool = False


def foreign_kernel(transformation: optax.GradientTransformation) -> Kernel:
    """The node for a transformation of which only `init` and `update` are known."""
    update = optax.with_extra_args_support(transformation).update
    nothing = _state_without_arrays(transformation)

    def init_state(context: "Context", example: Leaves) -> Any:
        return transformation.init(example.tree())

    def run(context: "Context", state: Any, value: Leaves) -> tuple[Leaves, Any]:
        params = context.params_like(value)
        tree = None if params is None else params.map(working).tree()
        old = state if nothing is None else nothing
        updates, state = update(value.tree(), old, tree, **context.inner_extra())
        return Leaves.up_to(value.treedef, updates), state

    return Kernel(
        _foreign_name(transformation),
        init_state,
        run,
        needs=getattr(transformation, "needs", ()),
        arguments=closed_over(transformation.update),
        stateless=nothing is not None,
    )


def flow_kernel(inner: Any) -> Kernel:
    """The node for a flow that runs as a whole: held, stacked or projected."""
    runner = inner.runner

    def run(context: "Context", state: Any, value: Leaves) -> tuple[Any, Any]:
        given = context.params_like(value)
        return runner.run(value, state, given, context.inner_extra())  # type: ignore[no-any-return]

    return Kernel(
        inner.state_name or inner.label,
        lambda context, example: runner.init_on(example, context.params_like(example)),
        run,
        out=lambda context, shape: runner.output_shape(shape),
        needs=inner.needs,
        arguments=inner.arguments,
        children=(inner,),
    )


def kernel_of(transformation: optax.GradientTransformation) -> Kernel:
    """Any transformation as a node that can be run as a whole."""
    is_flow = hasattr(transformation, "runner")
    return flow_kernel(transformation) if is_flow else foreign_kernel(transformation)


def _foreign_name(transformation: optax.GradientTransformation) -> str:
    for function in (transformation.update, transformation.init):
        name = getattr(function, "__qualname__", "").split(".<locals>")[0].rsplit(".", 1)[-1]
        if name.isidentifier() and not name.startswith("_") and name not in _ANONYMOUS:
            return name
    return "transformation"


_ANONYMOUS = {"stateless", "with_extra_args_support", "init_fn", "update_fn", "update"}


def closed_over(function: Callable[..., Any]) -> dict[str, Any]:
    """The numbers that a function closes over: the hyper-parameters of a foreign transformation."""
    cells = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    values = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
        if isinstance(value, bool | int | float | str):
            values[name] = value
    return values


def _state_without_arrays(transformation: optax.GradientTransformation) -> Any:
    """The state of a transformation that stores nothing: `EmptyState`s; None if it stores some."""
    try:
        state = transformation.init(jnp.zeros(1))
    except Exception:  # whatever it needs of real params, it is safer to call it stateful
        return None
    empty = (optax.EmptyState, optax.MaskedState)
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, empty))
    only_empty = len(nodes) > 0 and all(isinstance(node, optax.EmptyState) for node in nodes)
    return state if only_empty else None

"""Optax transformations, and anybody's, as nodes of a flow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from .values import Leaves, working

if TYPE_CHECKING:
    from .context import Context


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
      inside: `state -> states of the children`; None where they cannot be told apart.
      rebuild: `children -> Kernel`: the same node around other versions of its children, such as
        observed ones; None where that is not possible.
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
    rebuild: Callable[[tuple[Any, ...]], "Kernel"] | None = None

    def named_children(self) -> dict[str, Any]:
        """The children by name: an only one needs none."""
        if len(self.children) == 1:
            return {"": self.children[0]}
        found: dict[str, Any] = {}
        for child in self.children:
            name = unique = kernel_of(child).name
            number = 1
            while unique in found:
                number += 1
                unique = f"{name}_{number}"
            found[unique] = child
        return found


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
        children=parts_of(transformation),
        stateless=nothing is not None,
        inside=tuple,
    )


def flow_kernel(inner: Any) -> Kernel:
    """The node for a flow that runs as a whole: held, stacked or projected."""
    runner = inner.runner

    def run(context: "Context", state: Any, value: Leaves) -> tuple[Any, Any]:
        given = context.params_like(value)
        return runner.run(value, state, given, context.inner_extra())

    return Kernel(
        inner.state_name or inner.label,
        lambda context, example: runner.init_on(
            example, context.params_like(example), context.label
        ),
        run,
        out=lambda context, shape: runner.output_shape(shape),
        needs=inner.needs,
        arguments=inner.arguments,
        children=(inner,),
        inside=lambda state: (state,),
        rebuild=lambda children: flow_kernel(*children),
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
    """The numbers that a function closes over: hyper-parameters of a foreign transformation."""
    captured = _captured(function)
    return {
        k: value for k, value in captured.items() if isinstance(value, bool | int | float | str)
    }


def _captured(function: Callable[..., Any]) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    values = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    return values


def parts_of(transformation: optax.GradientTransformation) -> tuple[Any, ...]:
    """What an `optax.chain` was made of; empty for anything else."""
    inits = _captured(transformation.init).get("init_fns", ())
    updates = _captured(transformation.update).get("update_fns", ())
    pairs = zip(inits, updates, strict=False)
    return tuple(_original(init, update) for init, update in pairs)


def _original(init: Any, update: Any) -> Any:
    """The transformation that these functions belong to."""
    runner = getattr(update, "__self__", None)
    if hasattr(runner, "flow"):
        return runner.flow  # type: ignore[union-attr]
    return _captured(update).get("tx", optax.GradientTransformation(init, update))


def _state_without_arrays(transformation: optax.GradientTransformation) -> Any:
    """The state of a transformation that keeps no array; None for any other."""
    probe = {"matrix": jnp.zeros((2, 2)), "scalar": jnp.zeros(())}
    try:
        state = jax.eval_shape(transformation.init, probe)
    except Exception:  # whatever it needs of real params, it is safer to call it stateful
        return None
    return None if jax.tree.leaves(state) else state

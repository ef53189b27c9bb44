"""Hyper-parameters that can be observed as signals can: the learning rate above all."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.foreign import owner_of
from ..notation.program import Program
from ..notation.scope import Scope, building
from ..notation.signal import Function, Signal, clock


def argument_signals(program: Program, name: str) -> list[Signal]:
    """What an argument of the method is at this step; of the parts where it has none of that name.

    More than one where parts have different values of it.

    Args:
      program: of the method.
      name: of the argument.
    """
    scopes = {id(scope): scope for scope in _outermost(program, name)}
    inside = (value for scope in scopes.values() for value in _of_methods(scope, name))
    values: list[Any] = []
    for value in [*_of_methods(program, name)] or inside:
        if not any(value is other or _equal(value, other) for other in values):
            values.append(value)
    return [_at_this_step(program, name, value) for value in values]


def _of_methods(owner: Program | Scope, name: str) -> Iterator[Any]:
    """The argument of the method, or of each of those that are chained."""
    if _is_number(owner.arguments.get(name)):
        yield owner.arguments[name]
        return
    for part in owner.given:
        if (inside := owner_of(part)) is not None:
            yield from _of_methods(inside, name)


def _is_number(value: Any) -> bool:
    if isinstance(value, Signal | bool):
        return False
    return callable(value) or isinstance(value, int | float | np.ndarray | np.generic | jax.Array)


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, int | float) and isinstance(other, int | float) and one == other


def _outermost(program: Program, name: str) -> Iterator[Scope]:
    """The scopes with that argument that no other such scope is around."""
    for node in program.graph.live:
        around: list[Scope] = []
        scope: Scope | None = node.scope
        while scope is not None:
            around.append(scope)
            scope = scope.parent
        for candidate in reversed(around):
            if any(True for _ in _of_methods(candidate, name)):
                yield candidate
                break


def _at_this_step(program: Program, name: str, value: Any) -> Signal:
    def constant(context: Context) -> Any:
        return jnp.asarray(value, context.scalar_dtype)

    def follows(context: Context, count: Any) -> Any:
        return jnp.asarray(value(count - 1), context.scalar_dtype)

    with building(program.graph.builder):
        fn, args = (follows, (clock(),)) if callable(value) else (constant, ())
        return Function(fn, args, name, mode="whole", out="scalar", context=True)


class InjectedState(NamedTuple):
    """The state of a transformation of which injected hyper-parameters are observed.

    Attributes:
      inner: its own state.
      observed: the hyper-parameters by name, as of the last update.
    """

    inner: Any
    observed: dict[str, Any]


def watching_injected(
    transformation: optax.GradientTransformation, names: tuple[str, ...]
) -> optax.GradientTransformationExtraArgs:
    """The same transformation, which shows hyper-parameters that its state holds.

    Args:
      transformation: with `inject_hyperparams`, ours or Optax's, somewhere in it.
      names: of hyper-parameters.
    """
    inner = optax.with_extra_args_support(transformation)

    def shown(state: Any) -> dict[str, Any]:
        held = _held(state)
        for name in names:
            if name not in held:
                known = ", ".join(sorted(held)) or "none"
                raise FlowError(
                    f"observe: no signal, argument or injected number {name!r}; injected are "
                    f"{known}. What a wrapper of another library is given is observed before it "
                    "is wrapped"
                )
        return {name: jnp.array(held[name], copy=True) for name in names}

    def init(params: optax.Params) -> InjectedState:
        state = inner.init(params)
        return InjectedState(state, jax.tree.map(jnp.zeros_like, shown(state)))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = inner.update(updates, state.inner, params, **extra)
        return updates, InjectedState(state, shown(state))

    return optax.GradientTransformationExtraArgs(init, update)


def _held(state: Any) -> dict[str, Any]:
    """All injected hyper-parameters in a state."""
    found: dict[str, Any] = {}
    pending = [state]
    while pending:
        node = pending.pop(0)
        if isinstance(getattr(node, "hyperparams", None), Mapping):
            found = {**node.hyperparams, **found}
        if isinstance(node, Mapping):
            pending.extend(node.values())
        elif isinstance(node, tuple | list):
            pending.extend(node)
    return found

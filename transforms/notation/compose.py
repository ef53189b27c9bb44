"""Transformations one after another, and transformations by name."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, overload

import optax

from .build import Flow, flow
from .cell import cell_of
from .errors import FlowError
from .foreign import owner_of, refuse_other_than_transformations
from .receiver import Receiver
from .signal import Signal


@overload
def named(name: str, transformation: optax.GradientTransformation) -> Flow: ...
@overload
def named(name: str, transformation: Receiver) -> Receiver: ...


def named(name: str, transformation: optax.GradientTransformation | Receiver) -> Flow | Receiver:
    """Gives the state of a transformation a name, under which checkpoints and tools see it.

    A transformation to send signals through.

    Args:
      name: a valid Python identifier.
      transformation: any transformation, or what else stands on the right of `>>`, as `when`.

    Raises:
      FlowError: if the name is not an identifier.
    """
    _check_name("named", name)
    if isinstance(transformation, Receiver):
        return transformation.under(name)
    refuse_other_than_transformations("named", transformation)
    return as_flow(transformation).under(name)


def _check_name(label: str, name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise FlowError(f"{label}: name={name!r} must be an identifier that does not start with _")


def as_flow(transformation: optax.GradientTransformation) -> Flow:
    """A flow as it is; anything else as a flow of one node."""
    program = owner_of(transformation)
    if program is not None:
        return Flow.of(program)
    return flow(lambda g: g >> transformation, name=cell_of(transformation).name)


def chain(*parts: optax.GradientTransformation, name: str | None = None) -> Flow:
    """Applies transformations one after another, as `optax.chain`, with states that have names.

    A transformation to send signals through.

    A part's state is named after the part, so it does not depend on the position in the chain;
    parts without state leave no trace in it, and a chain inside a chain is the longer chain.

    Args:
      *parts: transformations, ours or Optax's; give one a name with `named(name, part)`.
      name: name of the state of the whole inside another flow.

    Returns:
      The composed transformation, whose state is a NamedTuple with one field per stateful part,
      and a `count` if any part needs the step count.

    Raises:
      FlowError: if a part is not a transformation.
    """
    if name is not None:
        _check_name("chain", name)
    for place, part in enumerate(parts):
        if not (hasattr(part, "receive") or hasattr(owner_of(part) or part, "init")):
            must = "a gradient transformation, or a function made with lift()"
            raise FlowError(f"chain: parts has {part!r} at {place}, which must be {must}")
    flat = tuple(_flat_parts(parts))

    def step(g: Signal) -> Signal:
        for part in flat:
            program = owner_of(part)
            g = g >> part if program is None else program.receive(g, in_chain=True)
        return g

    built = flow(step, name="chain").own_program
    remake = partial(chain, *parts)
    whole = replace(built, parts=flat or (optax.identity(),), given=parts, remake=remake)
    return Flow.of(whole) if name is None else named(name, Flow.of(whole))


def _flat_parts(parts: tuple[Any, ...]) -> Iterator[Any]:
    for part in parts:
        program = owner_of(part)
        is_plain = program is not None and program.state_name is None and not program.is_observed
        if is_plain and program.parts:
            yield from program.parts
        else:
            yield part

"""Reading signals from outside: `observe` and `observed`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optax

from ..notation.build import Flow
from ..notation.checks import checked
from ..notation.compose import chain
from ..notation.errors import FlowError
from ..notation.foreign import owner_of, parts_of
from ..notation.hyperparameters import Tree
from ..notation.layout import OBSERVED
from ..notation.program import Program
from ..notation.signal import CellNode, Delay, Signal, Slot
from .observed_arguments import argument_signals, watching_injected


@checked()
def observe(transformation: optax.GradientTransformation, *names: str) -> Flow:
    """The same transformation, which keeps the named signals in its state for logging.

    A function of a transformation.

    A name is that of a `tap`, or of a state (`"mu"`, `"scale_by_adam.mu"`), whose newest value is
    then read. What runs inside a held or stacked transformation is reached through the name of
    that (`"hessian.ema"`). Else it is that of an argument of the method, such as `"learning_rate"`:
    the number, or what the schedule is at the step; also where `inject_hyperparams` holds it, and
    in an `optax.chain`. What another wrapper of Optax's is given is observed before it is wrapped.
    Without names, all taps are kept. Read them with `observed(state)`.

    Args:
      transformation: what to observe.
      *names: taps, states or arguments.

    Returns:
      A transformation with the same updates.

    Raises:
      FlowError: for a name that it does not have, or that several signals share; the message
        lists those that it has.
    """
    program = owner_of(transformation) or chain(*_opened(transformation)).own_program
    places = _places(program)
    wanted = names or tuple(path for path, place in places.items() if place.is_tap)
    remake = partial(observe, transformation, *names)
    if injected := _only_in_state(wanted, program, places):
        known = [name for name in wanted if name not in injected]
        rest = observe(transformation, *known) if known else transformation
        inside = owner_of(chain(watching_injected(rest, injected)))
        return Flow.of(replace(inside, remake=remake))
    found = {name: _found(name, places, program) for name in wanted}
    return Flow.of(replace(_watching(program, found), remake=remake))


def _opened(transformation: optax.GradientTransformation) -> tuple[Any, ...]:
    """What chains of Optax's consist of, one within another too; else the transformation alone."""
    parts = () if owner_of(transformation) else parts_of(transformation)
    return tuple(inner for part in parts for inner in _opened(part)) or (transformation,)


@checked()
def observed(state: Tree) -> dict[str, Any]:
    """The signals that `observe` keeps in a state, by name, as of the last update.

    A function of a state.

    Args:
      state: the state of an observed transformation, however it is wrapped.
    """
    found: dict[str, Any] = {}
    pending = [state]
    while pending:
        node = pending.pop()
        if hasattr(node, "_fields") and OBSERVED in node._fields:
            found.update(getattr(node, OBSERVED))
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, tuple | list):
            pending.extend(node)
    return found


@dataclass(frozen=True)
class _Place:
    """Where a signal is.

    Attributes:
      signal: the signal, in the innermost flow.
      route: the cells and the number of the child in each, from the outermost flow to it.
      is_tap: whether a `tap` named it.
    """

    signal: Signal
    route: tuple[tuple[CellNode, int], ...] = ()
    is_tap: bool = False


def _places(program: Program) -> dict[str, _Place]:
    """Dotted path -> what can be observed there."""
    found: dict[str, _Place] = {}
    for node in program.graph.live:
        if isinstance(node, CellNode) and node.cell.stateless:  # it has taps, and no slot
            found.update(_within(node, ""))
    for path, slot in program.layout.slots().items():
        found[path] = _Place(_newest(slot))
        if isinstance(slot, CellNode):
            found.update(_within(slot, path))
    found.update((name, _Place(signal, is_tap=True)) for name, signal in program.graph.taps.items())
    return found


def _within(node: CellNode, prefix: str) -> dict[str, _Place]:
    if node.cell.rebuild is None:
        return {}
    return {
        ".".join(filter(None, (prefix, name, path))): replace(
            place, route=((node, number), *place.route)
        )
        for number, (name, child) in enumerate(node.cell.named_children().items())
        if (program := owner_of(child)) is not None
        for path, place in _places(program).items()
    }


def _newest(slot: Slot) -> Signal:
    """What the state becomes at this step: what is written to a delay, what a cell gives."""
    return slot.written if isinstance(slot, Delay) else slot


def _only_in_state(
    names: tuple[str, ...], program: Program, places: Mapping[str, _Place]
) -> tuple[str, ...]:
    """The names that only the state of a transformation that is no flow may know."""
    parts = program.parts or ()
    if all(owner_of(part) is not None for part in parts):
        return ()
    return tuple(
        name for name in names if not _matches(name, places) and not _argument_places(name, program)
    )


def _matches(name: str, places: Mapping[str, _Place]) -> list[str]:
    """That path, or those that end like that."""
    return [name] if name in places else [path for path in places if path.endswith(f".{name}")]


def _found(name: str, places: Mapping[str, _Place], program: Program) -> _Place:
    """The only place of that name."""
    matches = _matches(name, places)
    found = [places[path] for path in matches] or _argument_places(name, program)
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(matches) or "the arguments of its parts"
        raise FlowError(f"{program.label} has several signals named {name!r}: {which}")
    known = ", ".join(sorted(places)) or "nothing"
    raise FlowError(f"{program.label} has no signal named {name!r} to observe; it has {known}")


def _argument_places(name: str, program: Program) -> list[_Place]:
    """The argument of that name: of the method, else of its parts, else of what runs within."""
    found = [_Place(signal) for signal in argument_signals(program, name)]
    if found:
        return found
    for node in program.graph.live:
        if not isinstance(node, CellNode) or node.cell.rebuild is None:
            continue
        for number, child in enumerate(node.cell.named_children().values()):
            if (inside := owner_of(child)) is not None:
                for place in _argument_places(name, inside):
                    found.append(replace(place, route=((node, number), *place.route)))
    return found


def _watching(program: Program, wanted: Mapping[str, _Place]) -> Program:
    here = {name: place.signal for name, place in wanted.items() if not place.route}
    inside: dict[int, tuple[CellNode, dict[int, dict[str, _Place]]]] = {}
    for name, place in wanted.items():
        if place.route:
            (node, number), *route = place.route
            _, by_child = inside.setdefault(node.index, (node, {}))
            by_child.setdefault(number, {})[name] = replace(place, route=tuple(route))
    return program.watching(here, {i: _rebuilt(*found) for i, found in inside.items()})


def _rebuilt(node: CellNode, wanted: Mapping[int, Mapping[str, _Place]]) -> CellNode:
    children = tuple(
        Flow.of(_watching(owner_of(child), wanted[number])) if number in wanted else child
        for number, child in enumerate(node.cell.children)
    )
    rebuild = node.cell.rebuild
    assert rebuild is not None  # a node without children has no place inside
    return node.with_cell(rebuild(children))

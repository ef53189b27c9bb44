"""The hierarchy of names, and the flows that are being built."""

import contextvars
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import FlowError


class Scope:
    """A place in the hierarchy of names: one per transformation that a signal is sent through.

    Attributes:
      parent: the scope around it, None for the flow itself.
      hint: the name of its state.
      explicit: True where the user chose the name.
      label: the transformation's name.
      arguments: its hyper-parameters, for tables and drawings.
      given: of a chain the transformations that it was given; each has arguments of its own.
      method: whether it is a method's.
      whole: whether it is a method in a chain, whose states stand right among the chain's.
      output: the signal that leaves it.
    """

    def __init__(
        self,
        parent: "Scope | None",
        hint: str,
        explicit: bool = False,
        label: str = "",
        arguments: Mapping[str, Any] | None = None,
        given: tuple[Any, ...] = (),
    ) -> None:
        self.parent = parent
        self.hint = hint
        self.explicit = explicit
        self.label = label or hint
        self.arguments = dict(arguments or {})
        self.given = given
        self.method = False
        self.whole = False
        self.output: Any = None

    def copy(self, parent: "Scope | None") -> "Scope":
        """A scope of the same names under another one; its output is entered by the caller."""
        copied = Scope(parent, self.hint, self.explicit, self.label, self.arguments, self.given)
        copied.method, copied.whole = self.method, self.whole
        return copied


class Builder:
    """Collects what the step of one flow makes.

    Attributes:
      label: the flow's name.
      scope: where new nodes belong.
      inputs: the inputs by name, one node each.
      clocks: the step counts, one node of each kind, by whether it is that of the outermost flow.
      delays: the delays, each to be closed.
      taps: signals that can be observed, by name.
      observed: signals that are observed in a flow spliced into this one.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.scope = Scope(None, label)
        self.inputs: dict[str, Any] = {}
        self.clocks: dict[bool, Any] = {}
        self.delays: list[Any] = []
        self.taps: dict[str, Any] = {}
        self.observed: dict[str, Any] = {}

    def tap(self, name: str, signal: object) -> None:
        """Enters a signal under a name that is free."""
        taken, unique = 1, name
        while unique in self.taps:
            taken += 1
            unique = f"{name}_{taken}"
        self.taps[unique] = signal


_building: contextvars.ContextVar[tuple[Builder, ...]] = contextvars.ContextVar(
    "gradchain_flows_being_built", default=()
)


def current_builder(what: str = "this") -> Builder:
    """The flow being built; raises FlowError outside a step."""
    stack = _building.get()
    if not stack:
        raise FlowError(f"`{what}` makes a signal; signals exist only inside the step of a flow")
    return stack[-1]


@contextmanager
def building(builder: Builder) -> Iterator[Builder]:
    """Within it, nodes are entered into that builder."""
    token = _building.set((*_building.get(), builder))
    try:
        yield builder
    finally:
        _building.reset(token)

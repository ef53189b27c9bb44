"""Copying the nodes of one flow into another that is being built."""

from collections.abc import Callable, Mapping
from typing import Any

from .graph import Graph
from .scope import Scope, current_builder
from .shapes import PARAMS_LIKE
from .signal import CellNode, Clock, Delay, Input, Signal
from .steps import input_signal, step_count

Reader = Callable[[Delay | CellNode, Signal], Signal]


def splice(
    signal: Signal,
    graph: Graph,
    top: Scope,
    reader: Reader | None = None,
    clock: Signal | None = None,
    narrow: Callable[[Signal], Signal] | None = None,
    inputs: Mapping[str, Signal] | None = None,
) -> Signal:
    """The output of a copy of the graph that is fed with the signal.

    Args:
      signal: what the copied nodes read in place of the incoming update.
      graph: what is copied.
      top: the scope in which the copies live.
      reader: what they read in place of each delay, and of each node with a hand-written state,
        given the original and its copy.
      clock: what they read in place of the step count; that of the outermost flow stays.
      inputs: what they read in place of inputs of these names.
      narrow: for a part of the leaves: makes of an input shaped like the params what they read.
    """
    builder = current_builder(top.label)
    scopes = _Scopes(graph.builder.scope, top)
    copies: dict[int, Signal] = {}
    delays: list[tuple[Delay, Delay]] = []

    def copied(value: Any) -> Any:
        return copies.get(value.index, value) if isinstance(value, Signal) else value

    for node in graph.nodes:
        if isinstance(node, Input):
            given = {"updates": signal, **(inputs or {})}
            fed = node.name in given
            read: Signal = (
                given[node.name] if fed else input_signal(builder, node.name, node.optional)
            )
            if narrow is not None and node.name in PARAMS_LIKE and not fed:
                read = narrow(read)
            copies[node.index] = read
        elif isinstance(node, Clock):
            own = None if node.outermost else clock
            copies[node.index] = step_count(outermost=node.outermost) if own is None else own
        else:
            copy = node.rewired(tuple(map(copied, node.args)))
            copy.scope, copy.site = scopes[node.scope], node.site
            copies[node.index] = copy
            if isinstance(node, Delay) and isinstance(copy, Delay):
                copy.settle_dtype()
                delays.append((node, copy))
            if reader and isinstance(node, Delay | CellNode):
                copies[node.index] = reader(node, copy)
                copies[node.index].scope, copies[node.index].site = copy.scope, copy.site
    for original, copy in delays:
        copy.written = copied(original.written)
    for name, tapped in graph.taps.items():
        builder.tap(name, copied(tapped))
    for name, seen in graph.observed.items():
        builder.observed[name] = copied(seen)
    top.output = copied(graph.output)
    scopes.finish(copied)
    return top.output


class _Scopes:
    """The scopes of a graph, copied under another one."""

    def __init__(self, root: Scope, top: Scope) -> None:
        self.root = root
        self.copies: dict[int, tuple[Scope, Scope]] = {id(root): (root, top)}

    def __getitem__(self, scope: Scope) -> Scope:
        if id(scope) not in self.copies:
            assert scope.parent is not None
            self.copies[id(scope)] = (scope, scope.copy(self[scope.parent]))
        return self.copies[id(scope)][1]

    def finish(self, copied: Callable[[Any], Any]) -> None:
        """Enters what leaves each of them."""
        for original, copy in self.copies.values():
            if original is not self.root and original.output is not None:
                copy.output = copied(original.output)

"""What a step amounts to: its signals, from the inputs to the output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .bounds import Bound, Bounds, bounds_of
from .foreign import owner_of
from .rounding import is_narrow
from .scope import Builder
from .signal import CellNode, Clock, Delay, Input, Signal, Slot


@dataclass(frozen=True)
class Graph:
    """What a step amounts to: the signals, from the inputs to the output.

    Attributes:
      builder: whose nodes these are.
      output: the outgoing update.
      observed: the signals that are kept in the state, by name.
      replaced: nodes that stand in for those that the step made, by index.
      nodes: everything that the step made and that leads somewhere, taps included, each node
        after what it is computed from.
      live: those that the output and the observed signals depend on: what runs.
    """

    builder: Builder
    output: Signal
    observed: Mapping[str, Signal]
    replaced: Mapping[int, Signal] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[Signal, ...]:
        return self._leading_to(*self.builder.taps.values())

    @cached_property
    def live(self) -> tuple[Signal, ...]:
        return self._leading_to()

    @property
    def taps(self) -> Mapping[str, Signal]:
        """The signals that can be observed under a name of their own."""
        return self.builder.taps

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """The inputs by name, without the incoming update."""
        return {n.name: n for n in self.live if isinstance(n, Input) and n.name != "updates"}

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The nodes that keep state."""
        return tuple(node for node in self.live if isinstance(node, Slot))

    @cached_property
    def bounds(self) -> Bounds:
        """What is known of the signals without their values, where the gradient is finite."""
        return bounds_of(self.live, ("updates", "params"), self.output)

    @cached_property
    def bounds_within(self) -> Bounds:
        """The same where the graph runs inside another, which may send it anything."""
        return bounds_of(self.live, ("params",), self.output)

    def bound_of_output(self) -> Bound:
        """What is known of the output, whatever is sent to the graph."""
        known, index = self.bounds_within, self.output.index
        return Bound(finite=index in known.finite, moderate=index in known.moderate)

    @cached_property
    def uses_clock(self) -> bool:
        """Whether the step count is part of the state."""
        by_a_node = any(isinstance(node, Clock) or _is_rounded(node) for node in self.live)
        return self.follows_outermost or by_a_node

    @cached_property
    def follows_outermost(self) -> bool:
        """Whether something in it, however deep, reads the step count of the outermost flow."""
        cells = (node.cell for node in self.live if isinstance(node, CellNode))
        inside = (owner_of(child) for cell in cells for child in cell.children)
        return any(isinstance(node, Clock) and node.outermost for node in self.live) or any(
            program is not None and program.graph.follows_outermost for program in inside
        )

    def _leading_to(self, *more: Signal) -> tuple[Signal, ...]:
        evaluated = [d for d in self.builder.delays if d.evaluation is not None]
        pending: list[object] = [self.output, *self.observed.values(), *evaluated, *more]
        found: dict[int, Signal] = {}
        while pending:
            node = pending.pop()
            if not isinstance(node, Signal) or node.index in found:
                continue
            if node.builder is not self.builder:
                continue
            found[node.index] = self.replaced.get(node.index, node)
            pending.extend(node.args)
            if isinstance(node, Delay):
                pending.append(node.written)
        return tuple(found[index] for index in sorted(found))


def _is_rounded(node: Signal) -> bool:
    """Whether it is stored below float32, by draws that the step count tells apart."""
    return isinstance(node, Delay) and is_narrow(node.dtype)

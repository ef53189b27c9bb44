"""A region in two stages, where only what the second does to a leaf is worth a stack.

Larger leaves are worth a stack for what looks at several of their entries together, as a norm does.
What is made entry by entry before that, such as moments, may not be: it is left leaf by leaf.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from .crowds import crowds
from .entrywise import entrywise_results, needed_for
from .graph import Graph
from .region import Env, Evaluate, Inputs, Kept, Region, rows_of, wanted
from .signal import Delay, Signal
from .values import Part
from .worth import is_tiny, pays, program_of

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr


def stages(
    graph: Graph, nodes: list[Signal], env: Env, evaluate: Evaluate, kept: Kept
) -> list[list[Signal]]:
    """The nodes of a region in one stage or in two.

    Args:
      graph: the nodes are some of its.
      nodes: of the region.
      env: what is known, by index.
      evaluate, kept: see `evaluate_by_regions`.
    """
    region = Region(nodes, [node.index for node in nodes], env, evaluate, None)
    inputs = region.inputs(kept)
    row = _row_of_larger(inputs)
    if row is None:
        return [nodes]
    program, made = program_of(region.of_leaf(inputs), row)
    if program is None:
        return [nodes]
    return _Traced(graph, nodes, dict(zip(inputs, row, strict=True)), program.jaxpr, made).stages()


def _row_of_larger(inputs: Inputs) -> list[Any] | None:
    """What the nodes read of one of many larger leaves; None where none is, or stacks are there."""
    rows = rows_of(inputs)
    if any(type(x) is Part for row in rows for x in row):
        return None
    found = (rows[where[0]] for where in crowds(rows))
    return next((row for row in found if not any(map(is_tiny, jax.tree.leaves(row)))), None)


@dataclass(frozen=True)
class _Traced:
    """The nodes of a region, and what they do to one leaf.

    Attributes:
      graph: the nodes are some of its.
      nodes: each after those that it is computed from.
      inputs: what they read of the leaf, by the keys of `Inputs`.
      program: from these to the values of the nodes.
      made: shapes of these values, each a tree.
    """

    graph: Graph
    nodes: list[Signal]
    inputs: dict[tuple[bool, int], Any]
    program: "Jaxpr"
    made: list[Any]

    def stages(self) -> list[list[Signal]]:
        first, rest = self.by_entries()
        early = {node.index for node in first}
        done = needed_for(self.program, self.results_of(early))
        left = [x for x in self.program.eqns if all(x is not y for y in done)]
        is_split = pays(left, self.copied(rest)) and not pays(done, self.copied(first))
        return [first, rest] if first and rest and is_split else [self.nodes]

    def by_entries(self) -> tuple[list[Signal], list[Signal]]:
        """The nodes that are made entry by entry, of none but such, and the others."""
        results = iter(entrywise_results(self.program))
        first: list[Signal] = []
        rest: dict[int, Signal] = {}
        for node, count in zip(self.nodes, self.counts(), strict=True):
            is_entrywise = all(list(itertools.islice(results, count)))
            if is_entrywise and not any(_index(arg) in rest for arg in node.args):
                first.append(node)
            else:
                rest[node.index] = node
        return first, list(rest.values())

    def counts(self) -> list[int]:
        """How many arrays the value of each node has."""
        return [len(jax.tree.leaves(value)) for value in self.made]

    def results_of(self, indices: set[int]) -> list[bool]:
        """Of each result of the program, whether it belongs to one of these nodes."""
        each = zip(self.nodes, self.counts(), strict=True)
        return [node.index in indices for node, count in each for _ in range(count)]

    def copied(self, part: list[Signal]) -> list[Any]:
        """The arrays of the leaf that go into some of the nodes or come out of them."""
        own = {node.index for node in part}
        keys = {(True, node.index) for node in part if isinstance(node, Delay)}
        read = (arg for node in part if not isinstance(node, Delay) for arg in node.args)
        keys |= {(False, i) for i in map(_index, read) if i not in own}
        keys |= {(False, i) for i in wanted(self.graph, part)}
        values = {(False, n.index): x for n, x in zip(self.nodes, self.made, strict=True)}
        arrays = self.inputs | values
        return [x for key in keys for x in jax.tree.leaves(arrays.get(key))]


def _index(argument: object) -> int:
    return argument.index if isinstance(argument, Signal) else -1

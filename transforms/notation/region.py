"""Nodes that are computed leaf by leaf, as one function of what they read of a leaf."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import PyTreeDef

from .graph import Graph
from .signal import Delay, Signal
from .storage import read_leaves
from .values import Leaves

Env = dict[int, Any]
Evaluate = Callable[[Signal, Env], Any]
Kept = Callable[[Delay, PyTreeDef], Leaves]

Inputs = dict[tuple[bool, int], Leaves]
"""Trees by whether it is what a delay holds, and the index of the node."""

_ONE = jax.tree.structure(0)


@dataclass(frozen=True)
class Region:
    """Nodes of the leaves of one tree.

    Attributes:
      nodes: each after those that it is computed from.
      wanted: indices of those that something else reads.
      env: what is known besides, by index.
      evaluate: see `evaluate_by_regions`.
      within: where other nodes are computed from leaves, indices of those that only what takes
        stacks reads.
    """

    nodes: list[Signal]
    wanted: list[int]
    env: Env
    evaluate: Evaluate
    within: set[int] | None

    def inputs(self, kept: Kept) -> Inputs:
        """What the nodes read of the leaves from outside, and what their delays hold."""
        own = {node.index for node in self.nodes}
        read = {arg.index for node in self.nodes for arg in node.args if isinstance(arg, Signal)}
        found: Inputs = {
            (False, i): self.env[i] for i in sorted(read - own) if isinstance(self.env[i], Leaves)
        }
        treedef = next(iter(found.values())).treedef
        delays = (node for node in self.nodes if isinstance(node, Delay))
        return found | {(True, node.index): kept(node, treedef) for node in delays}

    def of(self, inputs: Inputs) -> list[Leaves]:
        """What is wanted, of all leaves or of some."""
        known = self.env | {i: tree for (is_kept, i), tree in inputs.items() if not is_kept}
        for node in self.nodes:
            if isinstance(node, Delay):
                held = inputs[True, node.index]
                known[node.index] = read_leaves(held, known[node.like.index])
            else:
                known[node.index] = self.evaluate(node, known)
        return [known[i] for i in self.wanted]

    def of_leaf(self, inputs: Inputs) -> Callable[[list[Any]], list[Any]]:
        """What is wanted of one leaf."""

        def of(row: list[Any]) -> list[Any]:
            given = {key: Leaves([value], _ONE) for key, value in zip(inputs, row, strict=True)}
            return [leaves.values[0] for leaves in self.of(given)]

        return of


def wanted(graph: Graph, region: list[Signal]) -> list[int]:
    """Indices of the nodes of a region that something else reads."""
    own = {node.index for node in region}
    read: list[object] = [graph.output, *graph.observed.values()]
    for node in graph.live:
        read += () if node.index in own else node.args
        read += (node.written,) if isinstance(node, Delay) else ()
    return sorted({value.index for value in read if isinstance(value, Signal)} & own)


def rows_of(inputs: Inputs) -> list[list[Any]]:
    """What is read of each leaf."""
    return [list(row) for row in zip(*(tree.held for tree in inputs.values()), strict=True)]

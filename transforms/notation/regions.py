"""Nodes that are computed leaf by leaf, together for leaves that are alike where these are many.

Between two nodes that look at the whole tree, or keep a state, lies a region of nodes that do the
same to every leaf by itself. Stacks are made and parted at its borders alone.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import PyTreeDef

from .crowds import Places, crowds, parts_by_place, reads_stacks, stack_of
from .entrywise import entrywise_results, needed_for
from .graph import Graph
from .known import made_once
from .signal import CellNode, Delay, Function, Signal
from .stackwise import stackwise
from .storage import read_leaves
from .values import MISSING, Leaves, Part
from .worth import is_tiny, is_worth_it, pays, program_of, traced_once

Env = dict[int, Any]
Evaluate = Callable[[Signal, Env], Any]
Kept = Callable[[Delay, PyTreeDef], Leaves]

Inputs = dict[tuple[bool, int], Leaves]
"""Trees by whether it is what a delay holds, and the index of the node."""

_ONE = jax.tree.structure(0)


def evaluate_by_regions(graph: Graph, evaluate: Evaluate, kept: Kept) -> Env:
    """The values of the nodes that lead somewhere, by index; see `walk`.

    Args:
      graph: whose nodes.
      evaluate: the value of a node, of those of its arguments.
      kept: what a delay holds, by the structure of the tree.
    """
    env: Env = {}
    once: set[int] = set()
    waiting = list(graph.live)
    while waiting:
        waiting = list(_what_is_no_region(waiting, env, evaluate))
        found, waiting = _next_region(waiting, env)
        for nodes in _stages(graph, found, env, evaluate, kept) if found else ():
            env |= _made_once(nodes, env, once)
            within = _within(graph) if _others_read(graph, nodes, env) else None
            region = _Region(nodes, _wanted(graph, nodes), env, evaluate, within)
            env |= _of_region(region, region.inputs(kept))
    return env


def _stages(
    graph: Graph, nodes: list[Signal], env: Env, evaluate: Evaluate, kept: Kept
) -> list[list[Signal]]:
    """The nodes of a region; if it pays in two parts, the first of which is no stack.

    Larger leaves are worth a stack for what looks at several of their entries together, as a norm
    does. What is made entry by entry before that, such as moments, may not be.
    """
    region = _Region(nodes, [node.index for node in nodes], env, evaluate, None)
    inputs = region.inputs(kept)
    row = _row_of_larger(inputs)
    program, made = (None, None) if row is None else program_of(region.of_leaf(inputs), row)
    if row is None or program is None:
        return [nodes]
    alone = iter(entrywise_results(program.jaxpr))
    counts = [len(jax.tree.leaves(value)) for value in made]
    flags = [all(list(itertools.islice(alone, count))) for count in counts]
    first, rest = _by_need(nodes, flags)
    arrays: dict[Any, Any] = dict(zip(inputs, row, strict=True))
    arrays |= {(False, node.index): value for node, value in zip(nodes, made, strict=True)}
    early = {node.index for node in first}
    results = [node.index in early for node, n in zip(nodes, counts, strict=True) for _ in range(n)]
    done = needed_for(program.jaxpr, results)
    left = [x for x in program.jaxpr.eqns if all(x is not y for y in done)]

    def copied(part: list[Signal]) -> list[Any]:
        return [x for key in _borders(graph, part) for x in jax.tree.leaves(arrays.get(key))]

    is_split = pays(left, copied(rest)) and not pays(done, copied(first))
    return [first, rest] if first and rest and is_split else [nodes]


def _by_need(nodes: list[Signal], flags: list[bool]) -> tuple[list[Signal], list[Signal]]:
    """The flagged nodes that are made of none but such, and the others."""
    first: list[Signal] = []
    rest: dict[int, Signal] = {}
    for node, flag in zip(nodes, flags, strict=True):
        waits = any(isinstance(arg, Signal) and arg.index in rest for arg in node.args)
        if flag and not waits:
            first.append(node)
        else:
            rest[node.index] = node
    return first, list(rest.values())


def _row_of_larger(inputs: Inputs) -> list[Any] | None:
    """What the nodes read of one leaf of a crowd; None where one is tiny, or in a stack already."""
    rows = _rows(inputs)
    arrays = [x for where in crowds(rows) for x in jax.tree.leaves(rows[where[0]])]
    if not arrays or any(type(x) is Part or is_tiny(x) for x in arrays):
        return None
    return rows[crowds(rows)[0][0]]


def _borders(graph: Graph, nodes: list[Signal]) -> set[tuple[bool, int]]:
    """The trees that go into these nodes or come out of them, as in `Inputs`."""
    own = {node.index for node in nodes}
    held = {(True, node.index) for node in nodes if isinstance(node, Delay)}
    read = (arg for node in nodes if not isinstance(node, Delay) for arg in node.args)
    outside = {(False, x.index) for x in read if isinstance(x, Signal) and x.index not in own}
    return held | outside | {(False, i) for i in _wanted(graph, nodes)}


def _what_is_no_region(nodes: list[Signal], env: Env, evaluate: Evaluate) -> Iterator[Signal]:
    """Evaluates what can be and is not computed leaf by leaf; gives what is left."""
    left: set[int] = set()
    for node in nodes:
        is_ready = not any(isinstance(arg, Signal) and arg.index in left for arg in node.args)
        if is_ready and not _treedef(node, env, {}):
            env[node.index] = evaluate(node, env)
        else:
            left.add(node.index)
            yield node


def _made_once(nodes: list[Signal], env: Env, done: set[int]) -> Env:
    """The numbers that all leaves of a region read, each computed in one place; see `made_once`.

    Args:
      nodes: of the region.
      env: what is known.
      done: indices of those that are; these are entered.
    """
    read = {arg.index for node in nodes for arg in node.args if isinstance(arg, Signal)}
    numbers = [i for i in sorted(read - done) if _is_number(env.get(i))]
    done.update(numbers)
    if not numbers:
        return {}
    return dict(zip(numbers, made_once(*(env[i] for i in numbers)), strict=True))


def _is_number(value: object) -> bool:
    if not isinstance(value, jax.Array) or value.ndim:
        return False
    return not jnp.issubdtype(value.dtype, jax.dtypes.extended)


def _treedef(node: Signal, env: Env, inside: dict[int, PyTreeDef]) -> PyTreeDef | None:
    """The structure of the leaves by which a node is computed; None where it is not."""
    if isinstance(node, Delay):  # it can be read as soon as it is known what the values are like
        return inside.get(node.like.index) if isinstance(node.like, Signal) else None
    if not isinstance(node, Function) or not node.is_leafwise:
        return None
    indices = [arg.index for arg in node.args if isinstance(arg, Signal)]
    trees = [env[i].treedef for i in indices if isinstance(env.get(i), Leaves)]
    return next(iter(trees + [inside[i] for i in indices if i in inside]), None)


def _next_region(nodes: list[Signal], env: Env) -> tuple[list[Signal], list[Signal]]:
    """The nodes that can be computed leaf by leaf now, all of one tree, and the others."""
    inside: dict[int, PyTreeDef] = {}
    region: list[Signal] = []
    left: dict[int, Signal] = {}
    for node in nodes:
        treedef = _treedef(node, env, inside)
        waits = any(isinstance(arg, Signal) and arg.index in left for arg in node.args)
        other = region and treedef is not None and treedef != inside[region[0].index]
        if waits or treedef is None or other:
            left[node.index] = node
        else:
            inside[node.index] = treedef
            region.append(node)
    return region, list(left.values())


def _wanted(graph: Graph, region: list[Signal]) -> list[int]:
    """Indices of the nodes of a region that something else reads."""
    own = {node.index for node in region}
    read: list[object] = [graph.output, *graph.observed.values()]
    for node in graph.live:
        read += () if node.index in own else node.args
        read += (node.written,) if isinstance(node, Delay) else ()
    return sorted({value.index for value in read if isinstance(value, Signal)} & own)


def _others_read(graph: Graph, region: list[Signal], env: Env) -> bool:
    """Whether another node is computed from leaves of what the region reads or makes, or has."""
    own = {node.index for node in region}
    trees = own | {i for i, value in env.items() if isinstance(value, Leaves)}
    others = (node for node in graph.live if node.index not in own)
    computed = (node for node in others if not isinstance(node, Delay))
    return any(isinstance(x, Signal) and x.index in trees for node in computed for x in node.args)


def _within(graph: Graph) -> set[int]:
    """Indices of the nodes that are neither stored nor given out, and whose readers take stacks."""
    leaving: list[object] = [graph.output, *graph.observed.values()]
    for node in graph.live:
        leaving += (node.written,) if isinstance(node, Delay) else ()
        leaving += () if _takes_stacks(node) else node.args
    return {node.index for node in graph.live} - {
        node.index for node in leaving if isinstance(node, Signal)
    }


def _takes_stacks(node: Signal) -> bool:
    if isinstance(node, CellNode):
        return node.cell.takes_stacks
    is_leafwise = isinstance(node, Function) and node.is_leafwise
    return is_leafwise or reads_stacks(getattr(node, "fn", None))


@dataclass(frozen=True)
class _Region:
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


def _of_region(region: _Region, inputs: Inputs) -> Env:
    """The values that are wanted of a region, by index, and what was stacked to compute them."""
    of_leaf = region.of_leaf(inputs)
    rows = _rows(inputs)
    read: dict[Places, list[Any]] = {}
    made: dict[Places, list[Any]] = {}
    free = None if region.within is None else [i in region.within for i in region.wanted]
    for where in crowds(rows):
        if is_worth_it(of_leaf, rows[where[0]], free):
            read[where] = [stack_of(tree, where) for tree in inputs.values()]
            made[where] = stackwise(of_leaf, len(where))(read[where])
    parts = [
        parts_by_place({where: stacks[at] for where, stacks in made.items()})
        for at in range(len(region.wanted))
    ]
    seen = dict(zip(inputs, _with_stacks(list(inputs.values()), read), strict=True))
    wanted = _with_stacks(_with_others(region, inputs, parts), made)
    known = {i: tree for (is_kept, i), tree in seen.items() if not is_kept}
    return known | dict(zip(region.wanted, wanted, strict=True))


def _rows(inputs: Inputs) -> list[list[Any]]:
    return [list(row) for row in zip(*(tree.held for tree in inputs.values()), strict=True)]


def _with_stacks(trees: list[Leaves], stacks: dict[Places, list[Any]]) -> list[Leaves]:
    return [
        tree.with_stacks({where: each[at] for where, each in stacks.items()})
        for at, tree in enumerate(trees)
    ]


def _with_others(region: _Region, inputs: Inputs, parts: list[dict[int, Any]]) -> list[Leaves]:
    """What is wanted of all leaves: parts of stacks by place, and the others one by one."""
    left = _without(inputs, set().union(*parts))
    alike = _called(region, left)
    found = [own | other for own, other in zip(parts, alike, strict=True)]
    done = set().union(*found)
    if not done:
        return region.of(inputs)
    first = next(iter(inputs.values()))
    others = [Leaves([MISSING] * len(first), first.treedef)] * len(found)
    if len(done) < len(first):
        others = region.of(_without(left, done))
    return [
        Leaves((own.get(i, x) for i, x in enumerate(other.held)), first.treedef)
        for own, other in zip(found, others, strict=True)
    ]


def _without(inputs: Inputs, places: set[int]) -> Inputs:
    if not places:
        return inputs
    return {key: tree.only(lambda i: i not in places) for key, tree in inputs.items()}


def _called(region: _Region, inputs: Inputs) -> list[dict[int, Any]]:
    """What is wanted of leaves that are alike and of no stack, by place."""
    of_leaf = region.of_leaf(inputs)
    rows = dict(enumerate(_rows(inputs)))
    whole = {i: row for i, row in rows.items() if not any(type(x) is Part for x in row)}
    found = traced_once(lambda *row: of_leaf(list(row)), whole)
    return [{i: made[at] for i, made in found.items()} for at in range(len(region.wanted))]

"""Nodes that are computed leaf by leaf, together for leaves that are alike where these are many.

Between two nodes that look at the whole tree, or keep a state, lies a region of nodes that do the
same to every leaf by itself. Stacks are made and parted at its borders alone.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import PyTreeDef

from .crowds import Places, crowds, parts_by_place, reads_stacks, stack_of
from .graph import Graph
from .known import made_once
from .region import Env, Evaluate, Inputs, Kept, Region, rows_of, wanted
from .region_stages import stages
from .signal import CellNode, Delay, Function, Signal
from .stackwise import stackwise
from .values import MISSING, Leaves, Part
from .worth import is_worth_it, traced_once


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
        for nodes in stages(graph, found, env, evaluate, kept) if found else ():
            env |= _made_once(nodes, env, once)
            within = _within(graph) if _others_read(graph, nodes, env) else None
            region = Region(nodes, wanted(graph, nodes), env, evaluate, within)
            env |= _of_region(region, region.inputs(kept))
    return env


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


def _of_region(region: Region, inputs: Inputs) -> Env:
    """The values that are wanted of a region, by index, and what was stacked to compute them."""
    of_leaf = region.of_leaf(inputs)
    rows = rows_of(inputs)
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


def _with_stacks(trees: list[Leaves], stacks: dict[Places, list[Any]]) -> list[Leaves]:
    return [
        tree.with_stacks({where: each[at] for where, each in stacks.items()})
        for at, tree in enumerate(trees)
    ]


def _with_others(region: Region, inputs: Inputs, parts: list[dict[int, Any]]) -> list[Leaves]:
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


def _called(region: Region, inputs: Inputs) -> list[dict[int, Any]]:
    """What is wanted of leaves that are alike and of no stack, by place."""
    of_leaf = region.of_leaf(inputs)
    rows = dict(enumerate(rows_of(inputs)))
    whole = {i: row for i, row in rows.items() if not any(type(x) is Part for x in row)}
    found = traced_once(lambda *row: of_leaf(list(row)), whole)
    return [{i: made[at] for i, made in found.items()} for at in range(len(region.wanted))]

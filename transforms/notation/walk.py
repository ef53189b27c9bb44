"""Going through the nodes of a graph: what they keep at first, and what they are at a step."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import PyTreeDef

from .boundary import input_value
from .bounds import Bounds
from .context import Context, leaf_by_leaf
from .crowds import MANY, is_crowded, reads_stacks, with_stacks
from .errors import FlowError
from .graph import Graph
from .known import made_once
from .members import alike
from .packing import has_parts, in_leaves
from .regions import evaluate_by_regions
from .roots import saturated
from .rounding import is_narrow, rounding_key
from .shapes import Shapes, bound
from .signal import CellNode, Clock, Delay, Function, Input, Signal
from .storage import (
    check_written,
    example,
    initial,
    kept_leaves,
    may_be_infinite,
    of_members,
    read,
    written,
)
from .values import Leaves, NoState, seen_anew

FEW_NUMBERS = 2**10
"""So many entries are copied for nothing."""


def first_states(graph: Graph, shapes: Shapes) -> dict[int, optax.OptState]:
    """What each node that keeps state holds before the first step, by its index."""
    context, found = shapes.context, {}
    for node in graph.slots:
        with located(context.label, node):
            found[node.index] = of_members(node, _first(node, context, shapes), context, shapes)
    return found


def _first(node: Signal, context: Context, shapes: Shapes) -> optax.OptState:
    if isinstance(node, Delay):
        return initial(node, context, shapes)
    assert isinstance(node, CellNode)
    args = [shapes.require(arg, f"`{node.hint}`") for arg in node.args]
    return node.cell.init(context, *(example(arg, context) for arg in args))


def check_delays(graph: Graph, shapes: Shapes) -> None:
    """Raises FlowError where what is written to a delay has another shape than the delay."""
    for node in graph.slots:
        if isinstance(node, Delay):
            with located(shapes.context.label, node):
                check_written(node, shapes.guess(node.written), shapes.guess(node))


def walk(
    graph: Graph, incoming: Leaves, stored: dict[int, optax.OptState], context: Context
) -> dict[int, Any]:
    """The values of all nodes at one step, by index.

    Args:
      graph: whose nodes.
      incoming: the incoming updates.
      stored: what the nodes keep, by index; replaced by what they keep from this step on.
      context: what is known at this step.
    """

    bounds = graph.bounds if context.receives_finite else graph.bounds_within

    def evaluate(node: Signal, env: dict[int, Any]) -> Any:
        with located(context.label, node):
            if isinstance(node, Input):
                return input_value(node, incoming, context)
            return _evaluated(node, env, stored, context, bounds)

    def kept(node: Delay, treedef: PyTreeDef) -> Leaves:
        with located(context.label, node):
            return kept_leaves(stored[node.index], treedef)

    if is_crowded(incoming.held):
        env = evaluate_by_regions(graph, evaluate, kept)
    else:
        env = {}
        for node in graph.live:
            env[node.index] = evaluate(node, env)
    for node in graph.slots:
        if isinstance(node, Delay):
            with located(context.label, node):
                value = _value(node.written, env, context, bounds)
                held = stored[node.index]
                stored[node.index] = written(node, value, held, _key(node, graph, context))
    return env


def _evaluated(
    node: Signal,
    env: dict[int, Any],
    stored: dict[int, optax.OptState],
    context: Context,
    bounds: Bounds,
) -> Any:
    if isinstance(node, Clock):
        return context.step if node.outermost else context.count
    if reads_stacks(getattr(node, "fn", None)):
        env |= _in_stacks(node, env)
    of_any = _of_any(node, bounds)
    args = [_value(arg, env, context, None if of_any else bounds) for arg in node.args]
    if isinstance(node, Delay):
        return _read_once(read(node, stored[node.index], args[0], bounds), context)
    if isinstance(node, CellNode):
        state = stored.get(node.index, NoState())
        seen = replace(context, sends_finite=all(map(bounds.is_finite, node.args)))
        result, new = node.cell.step(seen, state, *args)
        stored[node.index] = new if has_parts(state) else alike(in_leaves(new), state)
        return _once(result, args)
    assert isinstance(node, Function)
    if node.mode == "leaf":
        return leaf_by_leaf(of_any or bounds.function_of(node), args)
    value = bound(node, context, of_any)(*args)
    return value if node.is_leafwise else _once(value, args)


def _of_any(node: Signal, bounds: Bounds) -> Callable[..., Any] | None:
    """What computes the node of what may be infinite as it is, if its function bounds it itself."""
    if not isinstance(node, Function) or not any(may_be_infinite(x, bounds) for x in node.args):
        return None
    fn, given = node.fn, getattr(node.fn, "keywords", {})
    if isinstance(fn, functools.partial) and not fn.args:
        fn = fn.func
    found = getattr(fn, "of_any", None)
    return functools.partial(found, **given) if found and given else found


def _in_stacks(node: Signal, env: dict[int, Any]) -> dict[int, Leaves]:
    """The trees that the node reads, by index, with stacks of their leaves for who reads next."""
    indices = [arg.index for arg in node.args if isinstance(arg, Signal)]
    trees = {i: env[i] for i in indices if isinstance(env.get(i), Leaves)}
    lengths = {tree.treedef for tree in trees.values()}
    if len(lengths) != 1 or not is_crowded(next(iter(trees.values())).held):
        return {}
    return dict(zip(trees, with_stacks(*trees.values()), strict=True))


def _once(value: Any, args: list[Any]) -> Any:
    """What was made of a tree of many leaves; a few numbers are made in one place for all."""
    is_of_many = any(isinstance(arg, Leaves) and is_crowded(arg.held) for arg in args)
    if not is_of_many or (isinstance(value, Leaves) and len(value) >= MANY):
        return value
    leaves, structure = jax.tree.flatten(value)
    if not leaves or not all(map(_is_small, leaves)) or len(leaves) >= MANY:
        return value
    return jax.tree.unflatten(structure, made_once(*leaves))


def _read_once(held: Any, context: Context) -> Any:
    """What a delay holds; a number that many leaves read is read in one place for all.

    It is overwritten at the end. To do so in place, XLA looks at every reader and at what lies
    between it and the writer: of 120 leaves that took a minute.
    """
    is_number = isinstance(held, jax.Array) and held.ndim == 0 and _is_small(held)
    return made_once(held)[0] if is_number and context.treedef.num_leaves >= MANY else held


def _is_small(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return is_array and leaf.size <= FEW_NUMBERS


def _key(node: Delay, graph: Graph, context: Context) -> jax.Array | None:
    """The key by which what the delay keeps is rounded, None where it is not."""
    if not is_narrow(node.dtype):
        return None
    delays = enumerate(graph.builder.delays)
    number = next(i for i, delay in delays if delay.index == node.index)
    assert context.count is not None  # a flow that rounds counts
    return rounding_key(context.count, number)


def _value(arg: Any, env: dict[int, Any], context: Context, bounds: Bounds | None = None) -> Any:
    """What a node reads; given the bounds, the largest number where a state or param is infinite.

    It is bounded where it is read: within what reads it, or in its kernel, that is no copy.
    """
    if not isinstance(arg, Signal):
        return seen_anew(arg)
    if arg.index not in env:
        raise FlowError(
            f"{context.label}: `{arg.label}` ({arg.site}) is a signal of another flow; a "
            "transformation made from it can only run inside that flow"
        )
    value = env[arg.index]
    if bounds is None or not isinstance(value, Leaves) or not may_be_infinite(arg, bounds):
        return value
    return value.once(_bounded)


def _bounded(leaf: Any) -> Any:
    return jax.tree.map(saturated, leaf)


class located:  # noqa: N801  a context manager, used as a verb
    """Turns an error inside a node into one that names the method and the node."""

    def __init__(self, label: str, node: Signal) -> None:
        self.label = label
        self.node = node

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, FlowError):
            if self.label.partition(":")[0] not in str(error):
                error.args = (f"{self.label}: {error}",)
        elif isinstance(error, TypeError | ValueError):
            where = f"`{self.node.label}` ({self.node.site})"
            raise FlowError(f"{self.label}: at {where}: {error}") from error

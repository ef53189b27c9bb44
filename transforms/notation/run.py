"""Running a graph: the `init` and `update` of a flow."""

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .context import OUTER_LABEL, Context, leaf_by_leaf
from .errors import FlowError
from .layout import COUNT, OBSERVED, Group, arrange, field_of, title_of
from .needs import missing_input
from .shapes import Shapes
from .sharding import resharded
from .signal import Clock, Delay, Function, Input, Machine, Signal
from .storage import example, filled, initial, read, written
from .values import Leaves, is_missing, scalar_dtype, working

LAYER_DATA = ("layer_inputs", "layer_cotangents")
"""Inputs with one entry per layer, not per leaf: they reach the step as they are."""


class Runner:
    """Walks a graph; its `init` and `update` are those of the flow."""

    def __init__(self, graph: Any, label: str, is_chain: bool) -> None:
        self.graph = graph
        self.label = label
        self.is_chain = is_chain
        self.flow: Any = None  # whose init and update these are

    @cached_property
    def layout(self) -> Group:
        """Names and order of the states."""
        title = title_of("chain" if self.is_chain else self.graph.builder.label)
        return arrange(self.graph.slots, self.graph.builder.scope, title)

    def init(self, params: Any) -> Any:
        """The state before the first step; abstract params give an abstract state."""
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
            return jax.eval_shape(self.init, params)
        leaves = checked(Leaves.of(params), "params", self.label)
        return self.init_on(leaves.map(working), leaves)

    def init_on(self, examples: Leaves, given: Leaves | None = None, outer: str = "") -> Any:
        """The state for a signal like `examples`: the params, or zeros of other shapes."""
        context = self._starting(examples, given, outer)
        shapes = Shapes(context)
        values = {}
        for node in self.graph.slots:
            with located(context.label, node):
                values[node.index] = _initial(node, context, shapes)
        return self._packed(values, self._nothing_observed(shapes), jnp.zeros((), jnp.int32))

    def output_shape(self, examples: Leaves) -> Any:
        """Abstract value of what comes out for a signal like `examples`."""
        return Shapes(self._starting(examples, None)).require(self.graph.output, self.label)

    def _starting(self, examples: Leaves, given: Leaves | None, outer: str = "") -> Context:
        dtype = scalar_dtype(examples.present())
        return Context(self._label_in(outer), examples.treedef, examples, {}, None, dtype, given)

    def _nothing_observed(self, shapes: Shapes) -> dict[str, Any]:
        zeros = {}
        for name, signal in self.graph.observed.items():
            shape = shapes.require(signal, f"observing {name!r}")
            tree = shape.tree() if isinstance(shape, Leaves) else shape
            zeros[name] = jax.tree.map(lambda leaf: filled(leaf, None), tree)
        return zeros

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        """One step: the outgoing update, in the dtype of the params, and the new state."""
        incoming = checked(Leaves.of(updates), "updates", self.label)
        given = None if params is None else matching(incoming, params, self.label)
        value, state = self.run(incoming, state, given, extra)
        return outgoing(value, incoming, given, self.label), state

    def run(
        self, incoming: Leaves, state: Any, given: Leaves | None, extra: dict[str, Any]
    ) -> tuple[Any, Any]:
        """One step on flattened trees; what comes out may have any shape."""
        label = self._label_in(extra.get(OUTER_LABEL, ""))
        stored, count = self._read(state, label)
        params = None if given is None else given.map(working)
        dtype = scalar_dtype((given or incoming).present())
        context = Context(label, incoming.treedef, params, extra, count, dtype, given)
        self._demand_inputs(context)
        env = self._walk(incoming, stored, context)
        observed = {name: _exposed(env[s.index]) for name, s in self.graph.observed.items()}
        return env[self.graph.output.index], self._packed(stored, observed, context.count)

    def _label_in(self, outer: str) -> str:
        return f"{outer}: {self.label}" if outer else self.label

    def _demand_inputs(self, context: Context) -> None:
        for name, node in self.graph.inputs.items():
            value = context.given if name == "params" else context.extra.get(name)
            if value is None and not node.optional:
                raise FlowError(missing_input(self._label_of_user(node, context), name))

    def _label_of_user(self, node: Signal, context: Context) -> str:
        """The method's name; of a chain also that of the part that uses the node."""
        users = (n.scope for n in self.graph.live if any(arg is node for arg in n.args))
        scope = next(users, self.graph.builder.scope)
        while scope.parent is not None and scope.parent.parent is not None:
            scope = scope.parent
        is_part = self.is_chain and self.label == "chain" and scope.parent is not None
        return f"{context.label}: {scope.label}" if is_part else context.label

    def _read(self, state: Any, label: str) -> tuple[dict[int, Any], Any]:
        """What the slots hold, by node index, and the number of this step."""
        stored: dict[int, Any] = {}
        try:
            self.layout.unpack(state, stored)
            count = optax.safe_increment(field_of(state, COUNT)) if self.graph.uses_clock else None
        except FlowError as error:
            raise FlowError(f"{label}: {error}") from error
        return stored, count

    def _walk(self, incoming: Leaves, stored: dict[int, Any], context: Context) -> dict[int, Any]:
        """Evaluates the nodes in order, and replaces what the delays and machines keep."""
        env: dict[int, Any] = {}
        for node in self.graph.live:
            with located(context.label, node):
                env[node.index] = self._evaluated(node, env, stored, incoming, context)
        for node in self.graph.slots:
            if isinstance(node, Delay):
                with located(context.label, node):
                    value = self._value(node.written, env)
                    stored[node.index] = written(node, value, stored[node.index])
        return env

    def _evaluated(
        self,
        node: Signal,
        env: dict[int, Any],
        stored: dict[int, Any],
        incoming: Leaves,
        context: Context,
    ) -> Any:
        if isinstance(node, Input):
            return _input(node, incoming, context)
        if isinstance(node, Clock):
            return context.count
        args = [self._value(arg, env) for arg in node.args]
        if isinstance(node, Delay):
            return read(node, stored[node.index], args[0])
        if isinstance(node, Machine):
            state = stored.get(node.index, optax.EmptyState())
            result, stored[node.index] = node.kernel.update(context, state, *args)
            return result
        assert isinstance(node, Function)
        if node.mode == "whole":
            return context.bound(node)(*args)
        return leaf_by_leaf(node.fn, args)

    def _value(self, arg: Any, env: dict[int, Any]) -> Any:
        if not isinstance(arg, Signal):
            return arg
        if arg.index not in env:
            raise FlowError(
                f"{self.label}: `{arg.label}` ({arg.site}) is a signal of another flow; a "
                "transformation made from it can only run inside that flow"
            )
        return env[arg.index]

    def _packed(self, values: dict[int, Any], observed: dict[str, Any], count: Any) -> Any:
        extra = {COUNT: count} if self.graph.uses_clock else {}
        if observed:
            extra[OBSERVED] = observed
        return self.layout.pack(values, **extra)


def _initial(node: Signal, context: Context, shapes: Shapes) -> Any:
    if isinstance(node, Delay):
        return initial(node, context, shapes)
    assert isinstance(node, Machine)
    args = [shapes.require(arg, f"`{node.hint}`") for arg in node.args]
    return node.kernel.init(context, *(example(arg, context) for arg in args))


def _input(node: Input, incoming: Leaves, context: Context) -> Any:
    if node.name == "updates":
        return incoming.map(working)
    if node.name == "params":
        return context.params
    return _as_signal(context.extra.get(node.name), node.name, context)


def _as_signal(value: Any, name: str, context: Context) -> Any:
    """An extra input as a signal carries it: a tree like the gradient becomes leaves."""
    if value is None or callable(value) or name in LAYER_DATA:
        return value
    if name == "value":
        if jnp.ndim(value):
            raise ValueError(f"`value` must be a scalar loss, it has shape {jnp.shape(value)}")
        return jnp.asarray(value, context.scalar_dtype)
    try:
        return Leaves.up_to(context.treedef, value).map(_working_floats)
    except (ValueError, TypeError, KeyError):
        return value


def _working_floats(leaf: Any) -> Any:
    is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return working(leaf) if is_float else leaf


def outgoing(value: Any, incoming: Leaves, given: Leaves | None, label: str) -> Any:
    """The tree of updates, checked to fit the params and in their dtypes."""
    like = given or incoming
    if not isinstance(value, Leaves) or value.treedef != incoming.treedef:
        kind = "leaves of another structure" if isinstance(value, Leaves) else "a scalar"
        raise FlowError(
            f"{label}: the step returns {kind} instead of a tree like the gradient; "
            "what was projected, stacked or split must be brought back before it is returned"
        )
    for index, (leaf, param) in enumerate(zip(value.values, like.values, strict=True)):
        if is_missing(leaf):
            raise FlowError(
                f"{label}: the step returns nothing for leaf {incoming.path(index)}; "
                "merge() the parts of a split"
            )
        unstacked = given is None and jnp.shape(leaf) == jnp.shape(param)[1:]
        if jnp.shape(leaf) != jnp.shape(param) and not unstacked:
            raise FlowError(
                f"{label}: the update of leaf {incoming.path(index)} has shape "
                f"{jnp.shape(leaf)}, the parameter {jnp.shape(param)}"
            )
    return value.map(_fitted, like).tree()


def _fitted(leaf: Any, param: Any) -> Any:
    leaf = leaf.astype(param.dtype)
    return resharded(leaf, param) if leaf.shape == param.shape else leaf


def matching(incoming: Leaves, params: Any, label: str) -> Leaves:
    """The params flattened like the updates; FlowError where the trees differ.

    Updates may have one more axis in front: gradients of several losses, stacked.
    """
    try:
        leaves = Leaves.up_to(incoming.treedef, params)
    except (ValueError, TypeError, KeyError) as error:
        raise FlowError(f"{label}: params and updates are different trees: {error}") from error
    for index, (update, param) in enumerate(zip(incoming.values, leaves.values, strict=True)):
        if jnp.shape(param) not in (jnp.shape(update), jnp.shape(update)[1:]):
            raise FlowError(
                f"{label}: updates and params differ at leaf {incoming.path(index)}: "
                f"shapes {jnp.shape(update)} and {jnp.shape(param)}"
            )
    return checked(leaves, "params", label)


def checked(leaves: Leaves, what: str, label: str) -> Leaves:
    """The leaves as arrays; FlowError for one that is not of a floating or complex dtype."""
    return Leaves(
        (_checked_leaf(leaf, i, leaves, what, label) for i, leaf in enumerate(leaves.values)),
        leaves.treedef,
    )


def _checked_leaf(leaf: Any, index: int, leaves: Leaves, what: str, label: str) -> Any:
    array = jnp.asarray(leaf) if isinstance(leaf, float | complex) else leaf
    dtype = getattr(array, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise FlowError(
            f"{label}: {what} must be floating or complex arrays; leaf {leaves.path(index)} is "
            f"{dtype or type(leaf).__name__}. Keep other leaves out with optax.masked"
        )
    return array


class located:  # noqa: N801  a context manager, used as a verb
    """Turns an error inside a node into one that names the method and the node."""

    def __init__(self, label: str, node: Signal) -> None:
        self.label = label
        self.node = node

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, TypeError | ValueError) and not isinstance(error, FlowError):
            where = f"`{self.node.label}` ({self.node.site})"
            raise FlowError(f"{self.label}: at {where}: {error}") from error


def _exposed(value: Any) -> Any:
    return value.tree() if isinstance(value, Leaves) else jnp.asarray(value)

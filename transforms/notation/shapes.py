"""What shape a signal has, known before anything is computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .context import Context, Fitter
from .errors import FlowError
from .signal import CellNode, Clock, Delay, Function, Input, Signal
from .values import Leaves, at_least_float32, is_missing

UNKNOWN = object()
"""The shape of a signal that only the running update can tell, such as a user's closure."""

PARAMS_LIKE = frozenset({"updates", "params", "previous_grads", "predicted_grads", "hessian_diag"})
SCALARS = frozenset({"value"})


class Shapes:
    """Abstract values of the signals of one graph, each worked out once."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.known: dict[int, Any] = {}
        self.cache: dict[Any, Any] = {}

    def of(self, value: Any) -> Any:
        """`Leaves` of abstract arrays, an abstract scalar, a constant, or UNKNOWN."""
        if not isinstance(value, Signal):
            return value
        if value.index not in self.known:
            self.known[value.index] = self._infer(value)
        return self.known[value.index]

    def require(self, value: Any, what: str) -> Any:
        """As `of`, but an unknown shape is an error."""
        shape = self.of(value)
        if shape is UNKNOWN:
            raise FlowError(
                f"the shape of `{value.label}` ({value.site}), which {what} needs, depends on an "
                "input that is only known in update"
            )
        return shape

    def _infer(self, node: Signal) -> Any:
        if isinstance(node, Input):
            return self._input(node.name)
        if isinstance(node, Clock):
            return jax.ShapeDtypeStruct((), jnp.int32)
        if isinstance(node, Delay):
            return self._delay(node)
        args = [self.of(arg) for arg in node.args]
        if isinstance(node, CellNode):
            return self._cell(node, args)
        assert isinstance(node, Function)
        return self._leafwise(node, args) if node.mode == "leaf" else self._whole(node, args)

    def _input(self, name: str) -> Any:
        if name in PARAMS_LIKE:
            return self.context.params.map(abstract)
        if name in SCALARS:
            return jax.ShapeDtypeStruct((), self.context.scalar_dtype)
        return UNKNOWN

    def _delay(self, node: Delay) -> Any:
        if not isinstance(node.like, Signal):
            return jax.eval_shape(lambda: scalar_start(node.like, self.context.scalar_dtype))
        like = self.require(node.like, f"delay `{node.hint}`")
        if isinstance(like, Leaves):
            return like.map(lambda leaf: jax.tree.map(_widened, leaf))
        return like

    def _cell(self, node: CellNode, args: list[Any]) -> Any:
        if node.cell.out is not None:
            return node.cell.out(self.context, *args)
        return args[0]

    def _whole(self, node: Function, args: list[Any]) -> Any:
        if node.out == "scalar":
            return jax.ShapeDtypeStruct((), self.context.scalar_dtype)
        if isinstance(node.out, int):
            return args[node.out]
        if callable(node.out):
            return node.out(self.context, *args)
        if any(arg is UNKNOWN for arg in args):
            return UNKNOWN
        return self._evaluated(bound(node, self.context), args)

    def _leafwise(self, node: Function, args: list[Any]) -> Any:
        if any(arg is UNKNOWN for arg in args):
            return UNKNOWN
        trees = [arg for arg in args if isinstance(arg, Leaves)]
        if not trees:
            return self._evaluated(node.fn, args)
        rows = (
            tuple(arg.values[i] if isinstance(arg, Leaves) else arg for arg in args)
            for i in range(len(trees[0]))
        )
        return Leaves((self._leaf(node, row, args) for row in rows), trees[0].treedef)

    def _leaf(self, node: Function, row: tuple[Any, ...], args: list[Any]) -> Any:
        if any(map(is_missing, row)):
            return row[0] if is_missing(row[0]) else next(filter(is_missing, row))
        key = (node.index, tuple(str(entry) for entry in jax.tree.leaves(row)))
        if key not in self.cache:
            self.cache[key] = self._evaluated(lambda *values: node.fn(*Fitter(args)(values)), row)
        return self.cache[key]

    @staticmethod
    def _evaluated(fn: Any, args: Any) -> Any:
        abstract_at = [i for i, arg in enumerate(args) if _is_abstract(arg)]

        def call(*values: Any) -> Any:
            full = list(args)
            for i, value in zip(abstract_at, values, strict=True):
                full[i] = value
            return fn(*full)

        return jax.eval_shape(call, *(args[i] for i in abstract_at))


def bound(node: Function, context: Context) -> Callable[..., Any]:
    """The function of a whole-tree node, with the context if it wants it."""
    return (lambda *args: node.fn(context, *args)) if node.context else node.fn


def abstract(leaf: Any) -> Any:
    """Shape and dtype of an array (and its sharding, where the mesh is explicit)."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jax.eval_shape(lambda x: x, leaf)


def scalar_start(value: Any, dtype: Any) -> Any:
    """The array at which a scalar delay starts: floats in the precision of the params."""
    if callable(value):
        value = value()
    if isinstance(value, bool | int):
        return jnp.asarray(value, jnp.bool_ if isinstance(value, bool) else jnp.int32)
    if isinstance(value, float):
        return jnp.asarray(value, dtype)
    return jnp.array(value, copy=True)


def _is_abstract(value: Any) -> bool:
    nodes = jax.tree.leaves(value)
    return any(isinstance(node, jax.ShapeDtypeStruct) for node in nodes)


def _widened(leaf: Any) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return leaf.update(dtype=at_least_float32(leaf.dtype))

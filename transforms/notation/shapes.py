"""What shape a signal has, known before anything is computed."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .context import Context, Fitter
from .errors import FlowError
from .remembered import remember, remembered
from .signal import CellNode, Clock, Delay, Function, Input, Signal
from .values import Leaves, at_least_float32, is_missing, seen_anew

UNKNOWN = object()
"""The shape of a signal that only the running update can tell, such as a user's closure."""

PARAMS_LIKE = frozenset({"updates", "params", "previous_grads", "predicted_grads", "hessian_diag"})
SCALARS = frozenset({"value"})


class Shapes:
    """Abstract values of the signals of one graph, each worked out once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.known: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """`Leaves` of abstract arrays, an abstract scalar, a constant, or UNKNOWN."""
        if not isinstance(value, Signal):
            return seen_anew(value)
        if value.index not in self.known:
            self.known[value.index] = self._infer(value)
        return self.known[value.index]

    def guess(self, value: Any) -> Any:
        """As `of`, but UNKNOWN where it cannot be told.

        Gradients of several losses are stacked in `update`, which nobody knows here: what is made
        of them by a function of arrays may fail on the shapes of the params.
        """
        try:
            return self.of(value)
        except Exception:  # whatever a function of the user's raises on other shapes
            return UNKNOWN

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
            params = self.context.params
            assert params is not None
            return Leaves(jax.eval_shape(lambda leaves: leaves, params.values), params.treedef)
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
            return self._of_scalars(node.fn, args)
        columns = [
            arg.values if isinstance(arg, Leaves) else (arg,) * len(trees[0]) for arg in args
        ]
        rows = list(zip(*columns, strict=True))
        kinds = [_kind(leaves) for leaves in zip(*(tree.values for tree in trees), strict=True)]
        gaps = [next(filter(is_missing, row), None) for row in rows]
        distinct = {k: row for k, row, gap in zip(kinds, rows, gaps, strict=True) if gap is None}

        shapes = self._of_rows(node.fn, args, distinct)
        pairs = zip(kinds, gaps, strict=True)
        return Leaves((shapes[k] if gap is None else gap for k, gap in pairs), trees[0].treedef)

    def _of_scalars(self, fn: Callable[..., Any], args: list[Any]) -> Any:
        none = [False] * len(args)
        shape = remembered(fn, args, none)
        if shape is None:
            shape = self._evaluated(fn, args)
            remember(fn, args, none, shape)
        return shape

    def _of_rows(
        self, fn: Callable[..., Any], args: list[Any], distinct: dict[Hashable, Any]
    ) -> dict[Hashable, Any]:
        """What a leafwise function makes of each row of leaves and scalars."""
        leaves = [isinstance(arg, Leaves) for arg in args]
        shapes = {k: remembered(fn, row, leaves) for k, row in distinct.items()}
        new = [k for k, shape in shapes.items() if shape is None]
        if not new:
            return shapes

        def of_each(*values: Any) -> list[Any]:
            given = [values[i : i + len(args)] for i in range(0, len(values), len(args))]
            return [fn(*Fitter(args)(row)) for row in given]

        # Once for all that differ: what takes time is to start, not to evaluate.
        found = self._evaluated(of_each, [value for k in new for value in distinct[k]])
        for k, shape in zip(new, found, strict=True):
            shapes[k] = shape
            remember(fn, distinct[k], leaves, shape)
        return shapes

    @staticmethod
    def _evaluated(fn: Callable[..., Any], args: Sequence[Any]) -> Any:
        abstract_at = [i for i, arg in enumerate(args) if _is_abstract(arg)]

        def call(*values: Any) -> Any:
            full = list(args)
            for i, value in zip(abstract_at, values, strict=True):
                full[i] = value
            return fn(*full)

        return jax.eval_shape(call, *(args[i] for i in abstract_at))


def bound(
    node: Function, context: Context, fn: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """The function of a whole-tree node, or another in its place, with the context if wanted."""
    fn = fn or node.fn
    return functools.partial(fn, context) if node.context else fn


def abstract(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array (and its sharding, where the mesh is explicit)."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jax.eval_shape(lambda x: x, leaf)


def few_shapes(leaves: Leaves) -> Leaves:
    """Abstract leaves, each in the shape of one of its rank and dtype: the least regular one.

    With these the shapes of a graph can be checked in a time that does not grow with the number of
    different shapes.
    """
    found: dict[tuple[int, jnp.dtype], jax.ShapeDtypeStruct] = {}
    for leaf in leaves.present():
        kind = leaf.ndim, leaf.dtype
        if kind not in found or len(set(leaf.shape)) > len(set(found[kind].shape)):
            found[kind] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaves.map(lambda leaf: found[leaf.ndim, leaf.dtype])


def scalar_start(value: Any, dtype: DTypeLike) -> jax.Array:
    """The array at which a scalar delay starts: floats in the precision of the params."""
    if callable(value):
        value = value()
    if isinstance(value, bool | int):
        return jnp.asarray(value, jnp.bool_ if isinstance(value, bool) else jnp.int32)
    if isinstance(value, float):
        return jnp.asarray(value, dtype)
    return jnp.array(seen_anew(value), copy=True)


def _kind(leaves: tuple[Any, ...]) -> Hashable:
    """What tells abstract leaves apart."""
    entries, structure = jax.tree.flatten(leaves)
    return tuple(entries), structure


def _is_abstract(value: object) -> bool:
    nodes = jax.tree.leaves(value)
    return any(isinstance(node, jax.ShapeDtypeStruct) for node in nodes)


def _widened(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return leaf.update(dtype=at_least_float32(leaf.dtype))

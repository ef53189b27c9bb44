"""Tensors as matrices: which of their axes are inputs, which outputs, which a batch."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import jax
import optax

from ...transforms import FlowError, Signal, lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.values import Leaves, is_missing

DimensionNumbers: TypeAlias = (
    optax.contrib.MuonDimensionNumbers
    | Mapping[str, "DimensionNumbers"]
    | Sequence["DimensionNumbers"]
    | Callable[[optax.Params], object]
    | None
)
"""A tree like the params, a prefix of it, or a function from the params to one.

Its leaves have a `reduction_axis` and an `output_axis`, each an axis or several, as
`optax.contrib.MuonDimensionNumbers`; None at a leaf that is no matrix.
"""


def are_matrices(numbers: DimensionNumbers) -> Callable[[Any], Any]:
    """Selects the leaves that have dimension numbers."""

    def select(params: optax.Params) -> optax.Params:
        given = numbers(params) if callable(numbers) else numbers
        return jax.tree.map(lambda entry: entry is not None, given, is_leaf=_is_entry)

    return select


def as_matrices(signal: Signal, numbers: DimensionNumbers) -> Signal:
    """Every tensor as a batch of matrices (inputs, outputs)."""

    def viewed(context: Context, tree: Leaves) -> Leaves:
        return _each(_flattened, _per_leaf(numbers, tree, context), tree)

    return lift_tree(viewed, "as_matrices", context=True)(signal)


def from_matrices(matrices: Signal, like: Signal, numbers: DimensionNumbers) -> Signal:
    """The tensors again; `like` is the signal that was viewed as matrices."""

    def restored(context: Context, tree: Leaves, like: Leaves) -> Leaves:
        return _each(_unflattened, _per_leaf(numbers, like, context), tree, like)

    return lift_tree(restored, "from_matrices", context=True, out=1)(matrices, like)


def _each(fn: Callable[..., Any], numbers: list[Any], *trees: Leaves) -> Leaves:
    rows = zip(*(tree.values for tree in trees), numbers, strict=True)
    return Leaves((x[0] if is_missing(x[0]) else fn(*x) for x in rows), trees[0].treedef)


def _is_entry(node: optax.Params | None) -> bool:
    return node is None or hasattr(node, "reduction_axis")


def _per_leaf(numbers: DimensionNumbers, tree: Leaves, context: Context) -> list[Any]:
    source = tree if context.params is None else context.params
    given = numbers(source.tree()) if callable(numbers) else numbers
    found: list[Any] = []

    def spread(entry: Any, part: optax.Params) -> None:
        found.extend([entry] * len(jax.tree.leaves(part)))

    jax.tree.map(spread, given, tree.treedef.unflatten(range(len(tree))), is_leaf=_is_entry)
    wrong = [entry for entry in found if not _is_entry(entry)]
    if wrong:
        raise FlowError(
            f"muon_weight_dimension_numbers={given!r} must have a reduction_axis and an "
            f"output_axis for each leaf, not {wrong[0]!r}"
        )
    return found


def _order(x: jax.Array, entry: Any) -> tuple[list[int], list[int], list[int]]:
    """The axes of the batch, the inputs and the outputs."""
    sides = []
    for axes in (entry.reduction_axis, entry.output_axis):
        listed = (axes,) if isinstance(axes, int) else tuple(axes)
        if any(not -x.ndim <= axis < x.ndim for axis in listed):
            raise FlowError(f"{entry}: a leaf of shape {x.shape} has no such axis")
        sides.append([axis % x.ndim for axis in listed])
    inputs, outputs = sides
    if not inputs or not outputs or set(inputs) & set(outputs):
        raise FlowError(f"{entry}: inputs and outputs must be different axes of {x.shape}")
    batch = [axis for axis in range(x.ndim) if axis not in (*inputs, *outputs)]
    return batch, inputs, outputs


def _flattened(x: jax.Array, entry: Any) -> jax.Array:
    batch, inputs, outputs = order = _order(x, entry)
    sizes = [prod(x.shape[axis] for axis in axes) for axes in order]
    return x.transpose([*batch, *inputs, *outputs]).reshape(sizes)


def _unflattened(matrix: jax.Array, like: jax.Array, entry: Any) -> jax.Array:
    batch, inputs, outputs = _order(like, entry)
    axes = [*batch, *inputs, *outputs]
    back = sorted(range(like.ndim), key=axes.__getitem__)
    return matrix.reshape([like.shape[axis] for axis in axes]).transpose(back)

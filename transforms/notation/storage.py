"""What a delay keeps between steps: how it starts, is read and is written."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from .annotations import boxed, unboxed
from .context import Context
from .evaluation import EvaluationWeights
from .members import alike, all_axes_of, all_varying, inside_shard_map
from .plain import plain, restored, restored_leaf
from .roots import saturated
from .rounding import is_narrow, narrowed
from .shapes import Shapes, scalar_start
from .sharding import resharded
from .signal import Delay, Signal
from .values import Leaves, is_missing, working


def initial(node: Delay, context: Context, shapes: Shapes) -> Any:
    """What the delay holds before the first step."""
    if not isinstance(node.like, Signal):
        return plain(scalar_start(node.like, context.scalar_dtype))
    shape = shapes.require(node, f"delay `{node.hint}`")
    if not isinstance(shape, Leaves):
        return plain(filled(shape, node.start))
    leaves = started(node, example(shape, context))
    if node.dtype is not None:
        leaves = leaves.map(lambda leaf: jax.tree.map(lambda x: x.astype(node.dtype), leaf))
    return _marked(node, stored(leaves, context), context)


def of_members(node: Signal, state: Any, context: Context, shapes: Shapes) -> Any:
    """The first state of a node, varying from device to device as what it is of does.

    That is as the params do, and as the signals that it is like where these are a worker's own.
    """
    if not inside_shard_map() or (isinstance(node, Delay) and callable(node.like)):
        return state  # a key is everybody's
    like = [shapes.guess(arg) for arg in node.args]
    axes = all_axes_of(() if context.params is None else context.params.values)
    axes |= all_axes_of([x.values if isinstance(x, Leaves) else x for x in like])
    if not axes:
        return state
    if isinstance(state, EvaluationWeights):
        return state._replace(weights=of_members(node, state.weights, context, shapes))
    if not isinstance(node, Delay) or not isinstance(like[0], Leaves):
        return all_varying(state, axes)
    try:
        leaves = unboxed(context.treedef, state)
        parts = [x for x in (like[0], context.params) if x is not None]
        own = leaves.map(lambda _, *others: all_axes_of(others), *parts)
    except (ValueError, TypeError, KeyError):
        return all_varying(state, axes)
    moved = leaves.map(all_varying, own)
    return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(moved.values))


def started(node: Delay, examples: Leaves) -> Leaves:
    """What a delay of a tree signal starts at; see `delay`."""
    if node.start is None:
        return examples.map(_copied if node.of_params else _zeros)
    if not callable(node.start):
        return examples.map(lambda leaf: jax.tree.map(lambda x: filled(x, node.start), leaf))
    of_tree = getattr(node.start, "of_tree", False)
    leaves = node.start(examples) if of_tree else examples.map(node.start)
    return leaves.map(_copied)


def _copied(leaf: Any) -> Any:
    return jax.tree.map(lambda x: jnp.array(x, copy=True), leaf)


def stored(leaves: Leaves, context: Context) -> Any:
    """The tree that is kept of a signal's leaves."""
    return boxed(leaves.map(plain), context.params)


def read(node: Delay, stored: Any, like: Any) -> Any:
    """The stored value as a signal; `like` is the running value of the signal it resembles.

    An infinite state times 0, or less another one, would be NaN for good, so the largest number
    stands for it; where it is read this costs nothing, as a compiled program takes it into what
    follows. What starts at infinity means it.
    """
    number = _as_it_is if _starts_infinite(node) else saturated
    if not isinstance(like, Leaves):
        return number(restored_leaf(stored, like))
    tree = stored.weights if isinstance(stored, EvaluationWeights) else stored
    try:
        leaves = unboxed(like.treedef, tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its state belongs to another tree: {error}") from error
    return restored(leaves, like).map(
        lambda leaf: jax.tree.map(lambda x: number(_computable(x)), leaf)
    )


def _starts_infinite(node: Delay) -> bool:
    start = node.start if isinstance(node.like, Signal) else node.like
    return isinstance(start, float) and math.isinf(start)


def _as_it_is(x: Any) -> Any:
    return x


def written(node: Delay, value: Any, stored: Any, key: Any = None) -> Any:
    """What replaces `stored`, in its dtypes and shapes.

    Args:
      node: the delay.
      value: what is written to it.
      stored: what it holds.
      key: of the rounding, where it stores below float32.
    """
    if isinstance(stored, EvaluationWeights):
        return stored._replace(weights=_replaced(node, value, stored.weights, key))
    return _replaced(node, value, stored, key)


def check_written(node: Delay, value: Any, kept: Any) -> None:
    """Raises ValueError for abstract leaves that do not fit into the delay."""
    if not isinstance(value, Leaves) or not isinstance(kept, Leaves):
        return
    pairs = zip(value.values, kept.values, strict=False)
    for new, old in ((x, y) for x, y in pairs if hasattr(x, "shape") and hasattr(y, "shape")):
        if new.shape != old.shape:
            raise ValueError(_misfit(node, old.shape, new.shape))


def _misfit(node: Delay, old: Any, new: Any) -> str:
    return f"delay `{node.hint}` holds shape {old}, written {new}"


def _replaced(node: Delay, value: Any, stored: Any, key: Any) -> Any:
    keys = _keys(key)
    if not isinstance(value, Leaves):
        return jax.tree.map(lambda old: _like(node, _spread(value, old), old, keys), stored)
    olds = unboxed(value.treedef, stored)

    def replace(old: Any, new: Any) -> Any:
        if is_missing(new) or is_missing(old):  # nothing was computed: it stays as it was
            return old
        pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
        return jax.tree.unflatten(
            jax.tree.structure(old), [_like(node, n, o, keys) for n, o in pairs]
        )

    pairs = zip(olds.values, value.values, strict=True)
    new_leaves = jax.tree.leaves([replace(old, new) for old, new in pairs])
    return jax.tree.unflatten(jax.tree.structure(stored), new_leaves)


def _spread(value: Any, old: Any) -> Any:
    return jnp.broadcast_to(value, old.shape)


def _keys(key: Any) -> Iterator[Any]:
    """One key per array that is written."""
    for number in itertools.count():
        yield None if key is None else jax.random.fold_in(key, number)


def _like(node: Delay, new: Any, old: Any, keys: Iterator[Any]) -> Any:
    if jnp.shape(new) != old.shape:
        raise ValueError(_misfit(node, old.shape, jnp.shape(new)))
    key = next(keys)
    exactly = key is None or not is_narrow(old.dtype) or is_narrow(new.dtype)
    kept = jnp.asarray(new, old.dtype) if exactly else narrowed(new, old.dtype, key)
    return alike(resharded(kept, old), old)


def example(shape: Any, context: Context) -> Any:
    """What a node is initialised on: the params where it is shaped like them, else zeros."""
    if not isinstance(shape, Leaves):
        return filled(shape, None) if isinstance(shape, jax.ShapeDtypeStruct) else shape
    if shape.treedef != context.treedef or context.params is None:
        return shape.map(_zeros)
    return shape.map(_param_or_zeros, context.params)


def _param_or_zeros(shape: Any, param: Any) -> Any:
    if isinstance(shape, jax.ShapeDtypeStruct) and shape.shape == param.shape:
        return param if shape.dtype == param.dtype else jnp.zeros_like(param, dtype=shape.dtype)
    return _zeros(shape)


def _zeros(shape: Any) -> Any:
    return jax.tree.map(lambda leaf: filled(leaf, None), shape)


def zeros(shape: Leaves) -> Leaves:
    """Zeros in these shapes and dtypes."""
    return shape.map(_zeros)


def filled(leaf: Any, start: Any) -> Any:
    """An array like `leaf`, abstract or not, with every entry `start` (None: zero)."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.full(leaf.shape, 0 if start is None else start, leaf.dtype, device=leaf.sharding)
    return jnp.zeros_like(leaf) if start is None else jnp.full_like(leaf, start)


def _computable(leaf: Any) -> Any:
    return working(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


def _marked(node: Delay, tree: Any, context: Context) -> Any:
    if node.evaluation is None:
        return tree
    weight, params_weight = (scalar_start(w * 1.0, context.scalar_dtype) for w in node.evaluation)
    return EvaluationWeights(tree, weight, params_weight)

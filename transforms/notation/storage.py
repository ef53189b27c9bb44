"""What a delay keeps between steps: how it starts, is read and is written."""

import math
from functools import partial
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import PyTreeDef

from .annotations import boxed, unboxed
from .bounds import Bounds
from .context import Context
from .crowds import parts_by_place, stack_of
from .draws import folded
from .evaluation import EvaluationWeights
from .mapping import map_alike
from .members import alike, all_axes_of, all_varying, inside_shard_map
from .packing import has_parts, in_leaves
from .plain import plain, restored, restored_leaf
from .roots import saturated
from .rounding import is_narrow, narrowed
from .shapes import Shapes, scalar_start
from .sharding import resharded
from .signal import Delay, Input, Signal
from .values import Leaves, Part, is_missing, working


def initial(node: Delay, context: Context, shapes: Shapes) -> optax.OptState:
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


def of_members(
    node: Signal, state: optax.OptState, context: Context, shapes: Shapes
) -> optax.OptState:
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


def stored(leaves: Leaves, context: Context) -> optax.Params:
    """The tree that is kept of a signal's leaves."""
    return boxed(leaves.map(plain), context.params)


def read(node: Delay, stored: optax.OptState, like: object, bounds: Bounds) -> jax.Array | Leaves:
    """The stored value as a signal; `like` is the running value of the signal it resembles.

    A number is bounded; leaves are where they are read, see `may_be_infinite`.
    """
    if isinstance(like, Leaves):
        return read_leaves(kept_leaves(stored, like.treedef), like)
    number = restored_leaf(stored, like)
    return saturated(number) if may_be_infinite(node, bounds) else number


def may_be_infinite(node: Any, bounds: Bounds) -> bool:
    """Whether it is a state or the params, and the largest number is to stand for infinities.

    An infinite state times 0, or less another one, would be NaN for good. What starts at infinity
    means it.
    """
    if isinstance(node, Input):
        return node.name == "params" and not bounds.steps
    is_state = isinstance(node, Delay) and not _starts_infinite(node)
    return is_state and node.index not in bounds.harmless


def kept_leaves(stored: optax.OptState, treedef: PyTreeDef) -> Leaves:
    """The leaves that a delay of a tree signal holds, as they are stored."""
    tree = stored.weights if isinstance(stored, EvaluationWeights) else stored
    try:
        return unboxed(treedef, tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its state belongs to another tree: {error}") from error


def read_leaves(kept: Leaves, like: Leaves) -> Leaves:
    """What a delay holds as the leaves of a signal."""
    return restored(kept, like).once(_computable_leaf)


def _starts_infinite(node: Delay) -> bool:
    start = node.start if isinstance(node.like, Signal) else node.like
    return isinstance(start, float) and math.isinf(start)


def written(
    node: Delay, value: Any, stored: optax.OptState, key: jax.Array | None = None
) -> optax.OptState:
    """What replaces `stored`, in its dtypes and shapes.

    Args:
      node: the delay.
      value: what is written to it.
      stored: what it holds.
      key: of the rounding, where it stores below float32.
    """
    if isinstance(stored, EvaluationWeights):
        return stored._replace(weights=replaced(node.hint, value, stored.weights, key))
    return replaced(node.hint, value, stored, key)


def check_written(node: Delay, value: object, kept: object) -> None:
    """Raises ValueError for abstract leaves that do not fit into the delay."""
    if not isinstance(value, Leaves) or not isinstance(kept, Leaves):
        return
    pairs = zip(value.values, kept.values, strict=False)
    for new, old in ((x, y) for x, y in pairs if hasattr(x, "shape") and hasattr(y, "shape")):
        if new.shape != old.shape:
            raise ValueError(_misfit(node.hint, old.shape, new.shape))


def _misfit(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> str:
    return f"delay `{name}` holds shape {old}, written {new}"


def replaced(
    name: str, value: Any, stored: optax.OptState, key: jax.Array | None = None
) -> optax.OptState:
    """What replaces a stored tree or number, in its dtypes; where a leaf is missing, it stays.

    Args:
      name: of the delay, for messages.
      value: leaves or a number.
      stored: what it replaces.
      key: see `written`.
    """
    if not isinstance(value, Leaves):
        olds, structure = jax.tree.flatten(stored)
        return jax.tree.unflatten(
            structure, _kept(name, [_spread(value, old) for old in olds], olds, key)
        )
    if has_parts(stored):
        parts = _in_stacks(name, value, unboxed(value.treedef, stored)) if key is None else None
        if parts is not None:
            return jax.tree.unflatten(jax.tree.structure(stored), parts)
        stored = in_leaves(stored)
    held = unboxed(value.treedef, stored).values
    # where nothing was computed, it stays as it was
    computed = [
        not (is_missing(x) or is_missing(y)) for x, y in zip(value.values, held, strict=True)
    ]
    news, olds = (jax.tree.leaves([*compress(side, computed)]) for side in (value.values, held))
    kept = iter(_kept(name, news, olds, key))
    leaves = [
        jax.tree.map(lambda _: next(kept), old) if is_computed else old
        for is_computed, old in zip(computed, held, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(stored), jax.tree.leaves(leaves))


def _in_stacks(name: str, value: Leaves, kept: Leaves) -> list[Part] | None:
    """The new leaves as parts of stacks, where the old ones are all of them; None where not."""
    found: dict[int, Part] = {}
    for place, part in enumerate(kept.held):
        if type(part) is not Part:
            return None
        if place in found:
            continue
        places = [i for i, x in enumerate(kept.held) if type(x) is Part and x.of is part.of]
        if len(places) != part.of.count or any(is_missing(value.held[i]) for i in places):
            return None
        new = jax.tree.leaves(stack_of(value, tuple(places)))
        olds, structure = jax.tree.flatten(part.of.stack)
        stack = jax.tree.unflatten(structure, _kept(name, new, olds, None))
        found |= parts_by_place({tuple(places): stack})
    return [found[i] for i in range(len(kept))]


def _spread(value: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.broadcast_to(value, old.shape)


def _kept(
    name: str, news: list[jax.Array], olds: list[jax.Array], key: jax.Array | None
) -> list[jax.Array]:
    """Arrays in the dtypes of those that they replace; each that is rounded has its own key."""
    for new, old in zip(news, olds, strict=True):
        if jnp.shape(new) != old.shape:
            raise ValueError(_misfit(name, old.shape, jnp.shape(new)))
    rounded = {
        i: old.dtype
        for i, (new, old) in enumerate(zip(news, olds, strict=True))
        if key is not None and is_narrow(old.dtype) and not is_narrow(new.dtype)
    }
    found: dict[int, jax.Array] = {}
    for dtype in set(rounded.values()):
        assert key is not None
        places = [i for i in rounded if rounded[i] == dtype]
        keys = folded(key, np.array(places, np.int32))
        made = map_alike(partial(_narrowed, dtype), [news[i] for i in places], stack=keys)
        found |= dict(zip(places, made, strict=True))
    pairs = enumerate(zip(news, olds, strict=True))
    return [
        alike(resharded(found[i] if i in found else jnp.asarray(new, old.dtype), old), old)
        for i, (new, old) in pairs
    ]


def _narrowed(dtype: jnp.dtype, key: jax.Array, new: jax.Array) -> jax.Array:
    return narrowed(new, dtype, key)


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


def filled(leaf: jax.Array | jax.ShapeDtypeStruct, start: float | None) -> jax.Array:
    """An array like `leaf`, abstract or not, with every entry `start` (None: zero)."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.full(leaf.shape, 0 if start is None else start, leaf.dtype, device=leaf.sharding)
    return jnp.zeros_like(leaf) if start is None else jnp.full_like(leaf, start)


def _computable_leaf(leaf: Any) -> Any:
    return jax.tree.map(_computable, leaf)


def _computable(leaf: jax.Array) -> jax.Array:
    return working(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


def _marked(node: Delay, tree: optax.Params, context: Context) -> optax.OptState:
    if node.evaluation is None:
        return tree
    weight, params_weight = (scalar_start(w * 1.0, context.scalar_dtype) for w in node.evaluation)
    return EvaluationWeights(tree, weight, params_weight)

"""One tree of stacked gradients: every leaf has a leading axis of objectives.

Outside a step, in `init`, they are seen as the params, whose number of objectives is not known:
what is made of all objectives is therefore declared to be shaped like the params.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation import draws
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.mapping import map_leaves
from ..notation.packing import choose_leaves
from ..notation.roots import (
    maximum_over,
    power_of_two_below,
    saturated,
    summable_share,
)
from ..notation.shapes import UNKNOWN, abstract
from ..notation.signal import Signal
from ..notation.stackwise import CHEAP_TO_READ_TWICE
from ..notation.values import Leaves, is_missing, working
from .preferences import Vector, vector_for

ORDINARY = 2.0**60
"""Numbers nearer to 1 than this, in either direction, are multiplied without a thought."""

HOW_TO_STACK = {
    "objectives": "Stack them with gradchain.objective_gradients, or jax.jacrev of the vector of "
    "losses",
    "workers": "Stack one gradient of each worker, or gather them with robust_aggregate",
    "examples": "Take the gradient of every example with jax.vmap of jax.grad",
}


@checked()
def reduce_objectives(fn: Callable[..., Any], name: str) -> Callable[..., Signal]:
    """Makes a function of a stacked leaf, that gives one like the param, one of signals.

    A function of signals.

    Args:
      fn: function of the stacked leaf and the leaves of further signals.
      name: what the node is called.
    """

    def reduced(context: Context, tree: Leaves, *others: Leaves) -> Leaves:
        count_objectives(context, tree)
        return tree.map(fn, *others).map(_unless_finite, tree)

    return lift_tree(reduced, name, context=True, out=like_params)


@checked()
def weigh(
    g: Signal,
    weights: Vector | Signal | None = None,
    sizes: Signal | None = None,
    unit: Signal | None = None,
) -> Signal:
    """The weighted sum of stacked gradients, a tree like the params.

    A function of signals.

    Weights count as constants when the update is differentiated.

    Args:
      g: the stacked gradients.
      weights: m numbers, an array or a signal; default 1/m each.
      sizes: by which each gradient is divided first; default by none.
      unit: by which the sum is multiplied; default by none.
    """
    return _weigh(g, weights, sizes, unit)


def within_unit(x: jax.Array, sizes: jax.Array) -> jax.Array:
    """A stacked leaf divided by one number, or each of its gradients by its own.

    A function of arrays.

    Args:
      x: the leaf.
      sizes: a number, or one for each gradient; they count as constants.
    """
    # a leaf of few bits need not have the numbers of the others
    wide = working(x)
    sizes = jax.lax.stop_gradient(jnp.asarray(sizes, jnp.finfo(wide.dtype).dtype))
    if sizes.ndim:
        sizes = jnp.expand_dims(sizes, tuple(range(1, x.ndim)))
    return (wide / sizes).astype(x.dtype)


@checked()
def draw_for_objectives(
    g: Signal, key: Signal, draw: Callable[..., Any], given: Signal | None
) -> Signal:
    """One random number for each objective, for the whole tree.

    A function of signals.

    Args:
      g: the stacked gradients.
      key: a fresh key.
      draw: `(key, shape, dtype) -> array`.
      given: an input that stands in for the draw, where it is given.
    """

    def drawn(context: Context, tree: Leaves, fresh: jax.Array, ready: jax.Array) -> jax.Array:
        count = count_objectives(context, tree)
        if ready is None:
            return draw(fresh, (count,), context.scalar_dtype)
        return jnp.asarray(ready, context.scalar_dtype)

    return lift_tree(drawn, "draw", context=True, out=unknown_shape)(g, key, given)


@checked()
def draw_for_entries(
    g: Signal, key: Signal, draw: Callable[..., Any], given: Signal | None
) -> Signal:
    """A random number for each entry of the params, one for all objectives.

    A function of signals.

    Args:
      g: the stacked gradients.
      key: a fresh key.
      draw: `(key, shape, dtype) -> array`.
      given: an input that stands in for the draws, where it is given.
    """

    def drawn(context: Context, tree: Leaves, fresh: jax.Array, ready: Leaves) -> Leaves:
        if ready is not None:
            return ready
        keys = iter(draws.split(fresh, max(len(tree), 1)))
        return tree.map(lambda x: draw(next(keys), x.shape[1:], x.dtype))

    return lift_tree(drawn, "draw", context=True, out=like_params)(g, key, given)


def count_objectives(context: Context, tree: Leaves, what: str = "objectives") -> int:
    """The number of objectives; FlowError for leaves that are not stacked over as many."""
    same_tree = context.params is not None and context.params.treedef == tree.treedef
    params = context.params if same_tree else None
    counts = set()
    for index, leaf in enumerate(map(tree.abstract, range(len(tree)))):
        param = None if params is None else params.abstract(index)
        if is_missing(leaf):
            continue
        wanted = leaf.shape[1:] if param is None or is_missing(param) else param.shape
        if leaf.ndim == 0 or leaf.shape[1:] != wanted or leaf.shape[0] == 0:
            raise FlowError(_not_stacked(context, f"leaf {tree.path(index)}", leaf, wanted, what))
        counts.add(leaf.shape[0])
    if len(counts) > 1:
        raise FlowError(
            f"{context.label}: gradients must be stacked over the same {what} on every leaf; "
            f"the leading axes have lengths {sorted(counts)}"
        )
    return counts.pop() if counts else 1


def _not_stacked(context: Context, where: str, leaf: jax.Array, wanted: Any, what: str) -> str:
    axes = "".join(f", {size}" for size in wanted)
    return (
        f"{context.label}: gradients must have a leading axis of {what}; {where} has shape "
        f"{leaf.shape} instead of ({what}{axes}). {HOW_TO_STACK[what]}"
    )


def bare_array(value: Signal | None) -> Signal | None:
    """An input that is one array, whatever the structure of the gradient; None without it.

    A function of signals.
    """
    return None if value is None else _bare_array(value)


def _bare_array_of(value: jax.Array | Leaves | None) -> int | jax.Array | None:
    # Where the gradient is a single array, a single array looks like a tree of the same structure.
    return value.values[0] if isinstance(value, Leaves) else value


_bare_array = lift_tree(_bare_array_of, "bare_array", out=lambda _, value: value)


def unknown_shape(*_: object) -> Any:
    """Shape of what there is one of for each objective."""
    return UNKNOWN


def _weigh_of(
    context: Context,
    tree: Leaves,
    weights: Vector | None,
    sizes: jax.Array | None,
    unit: jax.Array | None,
) -> Leaves:
    count = count_objectives(context, tree)
    like = jnp.zeros(count, context.scalar_dtype)
    given = vector_for(context.label, "weights", weights, like, 1 / count)
    weights = jax.lax.stop_gradient(given)
    # opposite gradients near the end of the format are no infinities that cancel to NaN
    size, share = power_of_two_below(maximum_over(jnp.abs(weights))), summable_share(count)

    def weighted(x: jax.Array, is_ordinary: bool = False) -> jax.Array:
        dtype = jnp.finfo(x.dtype).dtype
        parts = x if sizes is None or is_ordinary else within_unit(x, sizes)
        shares = weights / size * share
        shares = (shares if sizes is None or not is_ordinary else shares / sizes).astype(dtype)
        total = jnp.tensordot(shares, parts, axes=1, precision="highest")
        if sizes is None:
            return saturated(total * size.astype(dtype) / share)
        # a number of the sum's own length, which few bits hold only in the sum
        wide = working(total)
        factors = (size, 1 / share, *(() if unit is None else (unit,)))
        for factor in factors:
            wide = wide * jnp.asarray(factor, jnp.finfo(wide.dtype).dtype)
        return saturated(wide, x.dtype).astype(x.dtype)

    def summed(is_ordinary: bool = False) -> Leaves:
        return map_leaves(lambda x: _unless_finite(weighted(x, is_ordinary), x), tree)

    if sizes is None or not is_large(tree, context):
        return summed()
    # where no number is far from 1 it is the weights that are divided, not a copy of the gradients
    relative = jnp.where(weights == 0, 1, jnp.abs(weights) / size)
    near = [(x > 1 / ORDINARY) & (x < ORDINARY) for x in (sizes, relative)]
    found: Leaves = choose_leaves(
        jnp.all(jnp.stack(near)), lambda: summed(is_ordinary=True), lambda: summed()
    )
    return found


def is_large(tree: Leaves, context: Context) -> bool:
    """Whether a copy of the gradients costs more than a question, and their dtypes hold as much."""
    leaves, bits = tree.present(), jnp.finfo(context.scalar_dtype).bits
    is_narrow = any(jnp.finfo(x.dtype).bits < bits for x in leaves)
    return sum(x.size for x in leaves) > CHEAP_TO_READ_TWICE and not is_narrow


def _unless_finite(one: jax.Array, stacked: jax.Array) -> jax.Array:
    """NaN where an objective's entry is not finite.

    A weight of zero, a choice or the largest number of the format would hide it from whoever looks
    for it behind the aggregator, as `optax.apply_if_finite` does.
    """
    # no NaN is written down, which `jax_debug_nans` would take for one that came about
    return one + (stacked - stacked).sum(axis=0)


def like_params(context: Context, tree: Any, *_: optax.Params | None) -> Leaves:
    """Abstract value of what is made of stacked gradients: it is shaped like the params."""
    assert context.params is not None
    if not isinstance(tree, Leaves):  # UNKNOWN
        return context.params.map(abstract)
    if tree.treedef != context.params.treedef:
        return tree
    return tree.map(lambda x, p: abstract(p).update(dtype=x.dtype), context.params)


_weigh = lift_tree(_weigh_of, "weigh", context=True, out=like_params)

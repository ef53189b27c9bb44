"""Gradients of several losses, stacked along a leading axis."""

import jax
import jax.numpy as jnp
import optax

from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift, lift_tree
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def stacked_gradients(g: Signal, count: int) -> Signal:
    """The incoming gradients as a signal whose leaves have a leading axis of `count` objectives.

    A function of signals.

    Of a single objective, gradients without that axis are accepted as well.

    Args:
      g: the incoming updates, each leaf with a leading axis of objectives.
      count: number of objectives, which the shapes of states depend on.

    Raises:
      FlowError: in update, if a leaf has another number of objectives.
    """

    def stacked(context: Context, tree: Leaves) -> Leaves:
        bare = count == 1 and _are_plain(tree, context.params)
        return tree.map(lambda leaf: _of_length(count, leaf[None] if bare else leaf, context))

    def shape(context: Context, tree: Leaves) -> Leaves:
        return tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype))

    return lift_tree(stacked, "stacked_gradients", context=True, out=shape)(g)


def _are_plain(tree: Leaves, params: Leaves | None) -> bool:
    if params is None:
        return True
    return all(tree.map(lambda leaf, p: leaf.ndim == p.ndim, params).present())


def _of_length(count: int, leaf: jax.Array, context: Context) -> jax.Array:
    if leaf.shape[:1] != (count,):
        raise FlowError(
            f"{context.label}: gradients must be stacked over {count} losses on a leading axis; "
            f"one has shape {leaf.shape}"
        )
    return leaf


@checked()
def combine(stacked: Signal, weights: optax.Params) -> Signal:
    """The weighted sum over the leading axis.

    A function of signals.

    Args:
      stacked: a signal with a leading axis on every leaf.
      weights: one number for each of its entries.
    """

    def weighted(x: jax.Array) -> jax.Array:
        scaled = jnp.asarray(weights, jnp.finfo(x.dtype).dtype)
        return jnp.tensordot(scaled, x, axes=1, precision="highest")

    return lift(weighted, "combine")(stacked)

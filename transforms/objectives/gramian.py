"""Weights of objectives that depend on the inner products of their gradients alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.crowds import by_stacks, of_stacks
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Hyperparameter
from ..notation.known import choose
from ..notation.mapping import map_leaves
from ..notation.roots import balanced, is_trusted, power_of_two_below
from ..notation.sharding import explicit_axes, replicated
from ..notation.signal import Signal
from ..notation.steps import scheduled
from ..notation.values import Leaves, is_missing
from ..workers import axis
from .stacked import count_objectives, is_large, unknown_shape, weigh, within_unit

ROOM = 2.0**40
"""How much longer than a unit the longest gradient may be, so that far shorter ones have one."""


@transformation()
def aggregate_by_gramian(
    weights_fn: Callable[..., jax.Array],
    scaled: bool = False,
    axis_name: str | None = None,
    **hyperparameters: Any,
) -> Flow:
    """One gradient from stacked ones, weighted by a function of their inner products.

    A transformation to send signals through.

        G_ij = sum over leaves of <g_i, g_j>,    w = weights_fn(G),    u = sum_i w_i g_i

    Gradients come stacked: every leaf has a leading axis of objectives. Leaves are contracted where
    they lie, on a mesh too; nothing is flattened or joined. When the update is differentiated, the
    weights count as constants.

    Args:
      weights_fn: from the Gramian, of shape (m, m), to m weights.
      scaled: call `weights_fn(G, c)` instead, with the Gramian of the gradients divided by c, a
        power of two near their largest entry. Products of tiny or huge gradients are then right,
        too; a rule that does not depend on the common length of the gradients ignores c.
      axis_name: the axis of `jax.shard_map` along which the gradients lie in parts, over which the
        inner products are summed; None: each program has them whole.
      **hyperparameters: numbers, schedules or signals, whose values of the step are handed to
        `weights_fn` by name.

    Raises:
      ValueError: in update, for gradients that are not stacked over the same objectives.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.objectives import aggregate_by_gramian
      >>> unit_lengths = aggregate_by_gramian(lambda G: 1 / jnp.sqrt(jnp.diag(G)))
      >>> stacked = jnp.array([[3.0, 4.0], [0.0, 10.0]])
      >>> one, _ = unit_lengths.update(stacked, unit_lengths.init(jnp.zeros(2)))
      >>> [round(float(x), 3) for x in one]
      [0.6, 1.8]
    """

    def weights(*values: float | jax.Array) -> jax.Array:
        given = len(values) - len(hyperparameters)
        named_values = dict(zip(hyperparameters, values[given:], strict=True))
        return weights_fn(*values[:given], **named_values)

    def step(g: Signal) -> Signal:
        scale = largest_entry(g, axis_name)
        gram = gramian(g, scale, axis_name)
        given = (gram, scale) if scaled else (gram * scale**2,)
        return weigh(g, lift(weights, "weights")(*given, *map(scheduled, hyperparameters.values())))

    return flow(step)


@checked()
def weigh_by_gramian(g: Signal, weights_fn: Callable[..., jax.Array], *others: Any) -> Signal:
    """One gradient from stacked ones whose lengths are far apart, by their inner products.

    A function of signals.

        c_i = a power of two near the largest entry of g_i,    G_ij = <g_i / c_i, g_j / c_j>,
        u = t sum_i w_i g_i / c_i,    w = weights_fn(G, c / t)

    Beside a long gradient the squares of a short one vanish: 1e-30 beside 1 has no inner product
    in float32. Divided by a number of its own each has its place in G, whatever its length. It is
    for rules in which the direction of a short gradient counts as much as that of a long one; the
    number t, in whose units the lengths are given, is such that neither end of the format is met.

    Args:
      g: the stacked gradients.
      weights_fn: from G and c / t, then the others, to the weights of the divided gradients.
      *others: numbers or signals, handed to `weights_fn`.
    """
    sizes = largest_entries(g)
    unit = _unit(sizes)
    w = lift(weights_fn, "weights")(gramian(g, sizes), sizes / unit, *others)
    return weigh(g, w, sizes, unit)


@checked()
def gramian(g: Signal, scale: Hyperparameter = 1.0, axis_name: str | None = None) -> Signal:
    """The inner products of stacked gradients over the whole tree, of shape (m, m).

    A function of signals.

    Where all are divided first that is a copy of them. Unless a square of a length is at an end of
    the format it is their inner products that are divided.

    Args:
      g: the stacked gradients.
      scale: they are divided by this number first, or each by its own.
      axis_name: see `aggregate_by_gramian`.
    """
    return _gramian(g, scale, axis_name=axis_name)


@checked()
def largest_entry(g: Signal, axis_name: str | None = None) -> Signal:
    """The power of two just below the largest magnitude in a tree; 1 where all is zero.

    A function of signals.
    """
    return _largest_entry(g, axis_name=axis_name)


@checked()
def largest_entries(g: Signal) -> Signal:
    """The power of two just below the largest magnitude of each stacked gradient, of shape (m,).

    A function of signals.

    It is 1 where all is zero.
    """
    return _largest_entries(g)


@of_stacks
def _gramian_of(
    context: Context, tree: Leaves, scale: jax.Array, axis_name: str | None
) -> jax.Array:
    axis.require_axis(context.label, axis_name)
    return axis.total(_own_gramian(context, tree, scale), axis_name)


def _own_gramian(context: Context, tree: Leaves, scale: jax.Array) -> jax.Array:
    count = count_objectives(context, tree)
    if not tree.present():
        return jnp.zeros((count, count), context.scalar_dtype)

    def summed(fn: Callable[[jax.Array], jax.Array]) -> jax.Array:
        parts = _of_leaves(lambda x: fn(jax.lax.stop_gradient(x)), tree)
        return balanced([jnp.sum(part.astype(context.scalar_dtype), axis=0) for part in parts])

    def scaled() -> jax.Array:
        return summed(lambda x: _products(within_unit(x, scale)))

    if not is_large(tree, context):
        return scaled()
    plain = summed(_products)
    rows, columns = (jnp.expand_dims(jnp.atleast_1d(scale), axis) for axis in (1, 0))
    leaves = map(tree.abstract, range(len(tree)))
    size = sum(x.size for x in leaves if not is_missing(x))
    is_right = jnp.all(is_trusted(jnp.diagonal(plain), size))
    return choose(is_right, lambda: plain / rows / columns, scaled)


def _of_leaves(fn: Callable[[jax.Array], jax.Array], tree: Leaves) -> list[jax.Array]:
    """`fn` of every leaf, with a leading axis of those that were computed together."""
    stacks, others = by_stacks(map_leaves(fn, tree))
    return [*(stack for (stack,) in stacks), *(part[None] for (part,) in others)]


def _products(x: jax.Array) -> jax.Array:
    axes = tuple(range(1, x.ndim))
    products = jax.lax.dot_general(
        x,
        x.conj(),
        ((axes, axes), ((), ())),
        precision="highest",
        out_sharding=_everywhere(x),
    )
    return jnp.real(products)


def _everywhere(x: jax.Array) -> Any:
    return NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec()) if explicit_axes(x) else None


@of_stacks
def _largest_entry_of(context: Context, tree: Leaves, axis_name: str | None) -> jax.Array:
    axis.require_axis(context.label, axis_name)
    largest = jnp.zeros((), context.scalar_dtype)
    for sizes in _of_leaves(lambda x: jnp.max(jnp.abs(x), initial=0), tree):
        largest = jnp.maximum(largest, jnp.max(sizes).astype(context.scalar_dtype))
    largest = jax.lax.stop_gradient(largest)
    if axis_name is not None:
        largest = jax.lax.pmax(axis.own(largest, axis_name), axis_name)
    return power_of_two_below(largest)


@of_stacks
def _largest_entries_of(context: Context, tree: Leaves) -> jax.Array:
    largest = jnp.zeros(count_objectives(context, tree), context.scalar_dtype)
    for sizes in _of_leaves(_sizes, tree):
        largest = jnp.maximum(largest, jnp.max(sizes, axis=0).astype(context.scalar_dtype))
    return power_of_two_below(largest)


def _sizes(x: jax.Array) -> jax.Array:
    magnitudes = jnp.abs(jax.lax.stop_gradient(x))
    return replicated(jnp.max(magnitudes, axis=tuple(range(1, x.ndim)), initial=0))


def _unit_of(sizes: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.max(sizes) / ROOM, 1)


_unit = lift(_unit_of, "unit")
_gramian = lift_tree(_gramian_of, "gramian", context=True, out=unknown_shape)
_largest_entry = lift_tree(_largest_entry_of, "largest_entry", context=True, out="scalar")
_largest_entries = lift_tree(
    _largest_entries_of, "largest_entries", context=True, out=unknown_shape
)

"""Masks of sparse params: how they start, and how the small is pruned and the lively regrown."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...transforms import Key, lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import of_stacks, units_of, with_stacks
from ...transforms.notation.known import repeat_while
from ...transforms.notation.mapping import map_leaves, numbers_of, one_each
from ...transforms.notation.ordering import are_largest
from ...transforms.notation.packing import choose_leaves
from ...transforms.notation.sharding import explicit_axes, replicated, resharded
from ...transforms.notation.stacks import TINY
from ...transforms.notation.values import Leaves, either, promoting
from ...transforms.trees.random import check_key, typed_key

Redistribution = Literal["momentum", "magnitude", "nonzeros", "none"]

ROUNDS = 1000
"""How often room that a full leaf has not is handed on to the others."""


def _falling(
    t: jax.Array, steps: int | jax.Array, start: float | jax.Array, end: float | jax.Array
) -> jax.Array:
    return end + (start - end) * (1 + jnp.cos(jnp.pi * _part(t, steps))) / 2


def _part(t: jax.Array, steps: int | jax.Array) -> jax.Array:
    # JAX divides counts in float32 even in a float64 run.
    return jnp.minimum(jnp.asarray(t, float) / jnp.asarray(steps, float), 1.0)


def _linear(t: jax.Array, steps: int | jax.Array, start: float | jax.Array) -> jax.Array:
    return start * (1 - _part(t, steps))


falling_rate = lift_tree(promoting(_falling), "prune_rate", out="scalar")
linear_rate = lift_tree(promoting(_linear), "prune_rate", out="scalar")


def first_mask(density: float, key: Key, given: optax.Params | None) -> Callable[[Leaves], Leaves]:
    """What the masks start at: given, or each entry active by itself with probability `density`."""
    check_key(key)

    def start(like: Leaves) -> Leaves:
        if given is not None:
            tree = Leaves.given(like.treedef, given, "init_mask")
            return like.map(lambda leaf, x: jnp.asarray(x, bool), tree).map(resharded, like)
        keys = iter(jax.random.split(typed_key(key), max(len(like), 1)))
        drawn = like.map(lambda leaf: jax.random.bernoulli(next(keys), density, leaf.shape))
        return drawn.map(resharded, like)

    start.of_tree = True  # type: ignore[attr-defined]
    return start


@of_stacks
def _missing_of(context: Context, mask: Leaves, density: float) -> jax.Array:
    """By how many entries the masks fall short of the budget."""
    dtype = context.scalar_dtype
    units = units_of(*with_stacks(mask))
    counts = [jnp.sum(m, dtype=dtype) for m in units]
    budget = density * sum(m.size for m in units)
    return jnp.asarray(budget, dtype) - sum(counts, jnp.zeros((), dtype))


missing_entries = lift_tree(promoting(_missing_of), "missing_entries", context=True, out="scalar")


@of_stacks
def _regrown_of(
    context: Context,
    mask: Leaves,
    x: Leaves,
    saliency: Leaves,
    due: jax.Array,
    rate: jax.Array,
    left_over: jax.Array,
    density: float,
    redistribution: Redistribution,
) -> Leaves:
    """The masks after this step; see `sparse_training`."""
    places = [i for i in range(len(mask)) if getattr(mask.abstract(i), "size", 0)]
    if not places:
        return mask
    numbers = {i: n for n, i in enumerate(places)}

    def changed() -> Leaves:
        masks, weights, salient = (
            _moved(tree, numbers).once(replicated) for tree in (mask, x, saliency)
        )
        new = _one_change(
            masks,
            weights,
            salient,
            jnp.asarray(rate, context.scalar_dtype),
            jnp.asarray(left_over, context.scalar_dtype),
            density,
            redistribution,
        )
        found = either(new.moved(dict(enumerate(places)), mask.treedef), mask)
        is_spread = any(explicit_axes(mask.abstract(i)) for i in places)
        return found.map(resharded, mask) if is_spread else found

    return choose_leaves(due, changed, lambda: mask)


def _moved(tree: Leaves, numbers: dict[int, int]) -> Leaves:
    return tree.moved(numbers, jax.tree.structure([0] * len(numbers)))


regrown = lift_tree(promoting(_regrown_of), "regrown", context=True, out=0)


def _one_change(
    masks: Leaves,
    weights: Leaves,
    saliency: Leaves,
    rate: jax.Array,
    left_over: jax.Array,
    density: float,
    redistribution: Redistribution,
) -> Leaves:
    """Pruned and regrown masks; counts are real numbers, one per leaf."""
    masks, weights, saliency = with_stacks(masks, weights, saliency)
    dtype, leaves = rate.dtype, len(masks)
    sizes = [masks.abstract(i).size for i in range(leaves)]
    size = jnp.asarray(sizes, dtype)
    active = numbers_of(lambda m: jnp.sum(m, dtype=dtype), masks, most=TINY)
    room = size - active

    def mean_of(values: Leaves) -> jax.Array:
        def total(m: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(m, jnp.abs(v), 0)).astype(dtype)

        return numbers_of(total, masks, values, most=TINY) / jnp.maximum(active, 1)

    measured = {
        "momentum": lambda: mean_of(saliency),
        "magnitude": lambda: mean_of(weights),
        "nonzeros": lambda: numbers_of(lambda w: jnp.sum(w != 0, dtype=dtype), weights, most=TINY),
        "none": lambda: size / (density * sum(sizes)),
    }[redistribution]()
    total = jnp.sum(measured)
    share = jnp.where(total > 0, measured / jnp.where(total > 0, total, 1), 1 / leaves)

    crowded = (room / size < 0.2) & (share > 1 / leaves)
    rates = jnp.where(crowded, jnp.minimum(room / size, rate), rate)
    removing = jnp.ceil(rates * active)
    first = jnp.where(removing == 0, -1, room + removing)
    pruned = map_leaves(
        lambda w, r: jnp.where(r < 0, w != 0, ~_are_largest(-jnp.abs(w), r)),
        weights,
        one_each(first, weights),
        most=TINY,
    )
    kept = numbers_of(lambda m: jnp.sum(m, dtype=dtype), pruned, most=TINY)
    quota = jnp.ceil(share * (jnp.sum(active - kept) + left_over))
    quota = jnp.floor(_within(quota, 0.99 * (room + removing)))
    return map_leaves(
        lambda m, s, most: m | (~m & _are_largest(jnp.where(m, -1, jnp.abs(s)), most)),
        pruned,
        saliency,
        one_each(quota, pruned),
        most=TINY,
    )


def _are_largest(x: jax.Array, count: jax.Array) -> jax.Array:
    return are_largest(x.ravel(), count).reshape(x.shape)


def _within(quota: jax.Array, cap: jax.Array) -> jax.Array:
    """Quotas without what exceeds their caps, which goes to the others in equal parts."""

    def going(carry: tuple[jax.Array, jax.Array, Any]) -> jax.Array:
        _, excess, count = carry
        return (excess > 0) & (count < ROUNDS)

    def body(
        carry: tuple[jax.Array, jax.Array, Any],
    ) -> tuple[jax.Array, jax.Array, Any]:
        now, _, count = carry
        excess = jnp.sum(jnp.maximum(now - cap, 0))
        return jnp.minimum(now, cap) + excess / len(cap), excess, count + 1

    handed_on = repeat_while(going, body, (quota, jnp.full_like(quota[0], jnp.inf), 0))[0]
    return jnp.minimum(handed_on, cap)

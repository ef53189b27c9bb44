"""Trying structures out: which are set to zero at a step of the trials, and which are lowest."""

import jax
import jax.numpy as jnp
import numpy as np

from ...transforms import lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.known import each
from ...transforms.notation.mapping import one_each
from ...transforms.notation.ordering import are_largest
from ...transforms.notation.values import Leaves, promoting
from ...transforms.notation.vectors import vector_of
from ...transforms.trees.vector import one_leaf
from .fading import kept_apart, target_of
from .structures import Groups, Structures, of_sets

TRIALS = (0.25, 0.5, 0.75)
"""Sparsities at which each set is tried out, two steps each."""

STEPS_PER_SET = 2 * len(TRIALS)


def _trial_of(
    context: Context, x: Leaves, scores: Leaves, now: jax.Array, groups: Groups
) -> Leaves:
    """The structures that are set to zero at a step of the trials of single sets."""
    structures = Structures(groups, x, context.label)
    sparsity = jnp.asarray(TRIALS)[(now // 2) % len(TRIALS)]
    if not structures.groups:
        return one_leaf(scores.values[0] > 0)

    def zeroed(number: jax.Array, part: jax.Array) -> jax.Array:
        here = (now >= 0) & (now // STEPS_PER_SET == number) & (now % 2 == 0)
        count = jnp.maximum(jnp.floor(part.size * sparsity), 1)
        return here & are_largest(-part, count)

    sets = structures.split(scores.values[0])
    numbers = one_each(jnp.arange(len(sets)), sets)
    return one_leaf(vector_of(of_sets(zeroed, numbers, sets)))


def _lowest_of(
    context: Context, x: Leaves, *scores: Leaves, groups: Groups, target_sparsity: float
) -> Leaves:
    """As many structures as are to go in the end, of all sets, with the lowest of each scores."""
    number = target_of(Structures(groups, x, context.label), target_sparsity)
    rows = jnp.stack([-each_of.values[0] for each_of in scores])
    found = each(lambda row: are_largest(row, number), rows, number)
    return one_leaf(tuple(found))


def _spared_of(context: Context, x: Leaves, chosen: Leaves, groups: Groups) -> Leaves:
    """What is chosen, but for the last structures of a set of which all are."""
    mask = chosen.values[0]
    structures = Structures(groups, x, context.label)
    return one_leaf(kept_apart(structures, mask, jnp.zeros_like(mask)))


def _of_set(context: Context, x: Leaves, like: Leaves, now: jax.Array, groups: Groups) -> Leaves:
    """Of which set a structure is that is tried out now, and one over the size of the set."""
    structures = Structures(groups, x, context.label)
    vector = like.values[0]
    numbers = np.repeat(np.arange(len(structures.sizes)), structures.sizes)
    shares = np.repeat(1 / np.maximum(structures.sizes, 1), structures.sizes)
    found = jnp.where(now // STEPS_PER_SET == numbers, jnp.asarray(shares, vector.dtype), 0)
    return one_leaf(found if structures.sizes else vector)


def _sets_of(context: Context, x: Leaves, groups: Groups) -> jax.Array:
    return jnp.asarray(len(Structures(groups, x, context.label).groups), jnp.int32)


def _count_of(marks: Leaves) -> jax.Array:
    return jnp.sum(marks.values[0], dtype=jnp.int32)


trial = lift_tree(promoting(_trial_of), "trial", context=True)
lowest = lift_tree(promoting(_lowest_of), "lowest", context=True)
spared = lift_tree(promoting(_spared_of), "spared", context=True, out=1)
share_of_set = lift_tree(promoting(_of_set), "of_set", context=True, out=1)
number_of_sets = lift_tree(_sets_of, "sets", context=True, out="scalar")
number = lift_tree(_count_of, "number", out="scalar")

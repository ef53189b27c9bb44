"""Structures that fade to zero: how many, which of them may, and the steps that scale them."""

from typing import Any

import jax
import jax.numpy as jnp

from ...transforms import lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.ordering import are_first
from ...transforms.notation.values import Leaves
from ...transforms.notation.vectors import vector_of
from .structures import Groups, Structures, of_sets, spread

MOST = 0.999
"""No more than this share of all structures is pruned."""


def _scaled_of(context: Context, u: Leaves, x: Leaves, factor: Leaves, groups: Groups) -> Leaves:
    """The steps to factor (x + u), with the factor of the structure; u at other leaves."""
    structures = Structures(groups, x, context.label)
    if not structures.groups:
        return u

    def scaled(leaves: Any, moves: Any, factors: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(
            _faded(*pair, spread(factors, pair[0])) for pair in zip(leaves, moves, strict=True)
        )

    steps = of_sets(
        scaled, structures.rows(x), structures.rows(u), structures.split(factor.values[0])
    )
    return structures.replaced(u, steps)


def _faded(leaf: jax.Array, move: jax.Array, f: jax.Array) -> jax.Array:
    moved = jnp.where(f == 0, -leaf, f * (leaf + move) - leaf)
    return jnp.where(f == 1, move, moved)


scaled_steps = lift_tree(
    _scaled_of,
    "scaled_steps",
    context=True,
    out=1,
    doc="The steps to where every structure is times its factor after the update.",
)


def target_of(structures: Structures, target_sparsity: float) -> int:
    """How many structures are pruned in all."""
    return int(sum(structures.sizes) * min(target_sparsity, MOST))


def kept_apart(
    structures: Structures, chosen: jax.Array, gone: jax.Array, divisible: int = 1
) -> jax.Array:
    """What is chosen without what a set cannot spare, from the end: one always stays.

    Args:
      structures: the sets.
      chosen: booleans, one per structure.
      gone: those that are pruned already.
      divisible: of this the number of structures that stay is a multiple, where there are more.
    """
    if not structures.groups:
        return chosen

    def spared(take: jax.Array, away: jax.Array) -> jax.Array:
        size, lost = take.size, jnp.sum(away)
        left = jnp.maximum(size - lost - jnp.sum(take), 1)
        stay = jnp.minimum(-(-left // divisible) * divisible, size)
        room = jnp.where(divisible > 1 and size <= divisible, 0, size - lost - stay)
        return are_first(take, room)

    return vector_of(of_sets(spared, structures.split(chosen), structures.split(gone)))

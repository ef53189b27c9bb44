"""How much a structure matters to a model, by several criteria."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...transforms import FlowError, lift_tree
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import entry_of, units_of
from ...transforms.notation.known import made_once
from ...transforms.notation.roots import balanced, norm, root, saturated
from ...transforms.notation.sharding import replicated
from ...transforms.notation.values import Leaves, promoting
from ...transforms.notation.vectors import vector_of
from ...transforms.trees.vector import one_leaf
from .structures import Groups, Structures, dots, of_sets

Criteria = Mapping[str, float]
"""Weight of each criterion by which structures are judged."""

CRITERIA: Criteria = {
    "magnitude": 0.2,
    "avg_magnitude": 0.2,
    "cosine_similarity": 0.2,
    "taylor_first_order": 0.2,
    "taylor_second_order": 0.2,
}


def checked_criteria(criteria: Criteria | None, allowed: Criteria, name: str) -> Criteria:
    """The weights, or the default ones; raises FlowError for a criterion that is not known."""
    chosen = allowed if criteria is None else criteria
    unknown = [key for key in chosen if key not in allowed]
    if unknown:
        raise FlowError(f"{name}: criteria has {unknown}; there are {', '.join(allowed)}")
    return chosen


SHORTER = 2.0**-40
"""By which directions are multiplied that are so long that their squares may be no numbers."""


def _with_squares(rows: Leaves) -> Leaves:
    """The directions, shorter where sums of squares may be none; 1e-8 is nothing beside them."""
    sizes = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(units_of(rows))]
    (is_long,) = made_once(balanced(sizes, jnp.maximum) > 1 / SHORTER)
    shorter = partial(jax.tree.map, lambda x: jnp.where(is_long, x * SHORTER, x))
    return rows.once(shorter)


def _scores_of(
    context: Context, x: Leaves, d: Leaves, groups: Groups, criteria: Criteria
) -> Leaves:
    """How much each structure matters: low is redundant; one number per structure."""
    structures = Structures(groups, x, context.label)
    total: Any = jnp.zeros(sum(structures.sizes), context.scalar_dtype)
    if not structures.groups:
        return one_leaf(total)

    def products(a: Any, b: Any) -> tuple[jax.Array, ...]:
        pairs = (replicated(dots(*pair)) for pair in ((a, a), (b, b), (a, b)))
        return tuple(saturated(p.astype(context.scalar_dtype)) for p in pairs)

    found = of_sets(products, structures.rows(x), _with_squares(structures.rows(d)))
    xx, dd, xd = (vector_of(entry_of(found, i)) for i in range(3))
    entries = np.repeat(structures.entries(x), structures.sizes)
    size, slope = root(xx), root(dd)
    columns = {
        "magnitude": size,
        "avg_magnitude": size / jnp.asarray(entries + 1e-6, size.dtype),
        "cosine_similarity": xd / (size + 1e-8) / (slope + 1e-8) + 1,
        "taylor_first_order": jnp.abs(xd),
        "taylor_second_order": 0.5 * xd**2,
    }
    judged = [key for key in columns if key in criteria]
    if not judged:
        return one_leaf(total)
    bounded = saturated(jnp.stack([columns[key] for key in judged]))
    # the root of the sum of squares plus 1e-8
    least = jnp.full((len(judged), 1), 1e-4, bounded.dtype)
    lengths = norm(jnp.concatenate([bounded, least], axis=1), axis=1) + 1e-8
    for key, column, length in zip(judged, bounded, lengths, strict=True):
        total = total + criteria[key] * column / length
    return one_leaf(total)


scores_of_structures = lift_tree(
    promoting(_scores_of),
    "scores",
    context=True,
    doc="How much each structure matters, one number per structure in one leaf.",
)

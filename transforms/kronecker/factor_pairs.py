"""Leaves whose product is the model: each is preconditioned by the other."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Mask
from ..notation.paths import joined, leaf_names
from ..notation.selection import selected
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..notation.values import MISSING, Leaves, is_missing

Pairs = Sequence[tuple[str, str]] | None

ROUNDING = 8
"""Units in the last place of a column's squared norm: a Cholesky pivot within them is noise."""


@checked()
def partner_leaves(params: Signal, pairs: Pairs = None, mask: Mask | None = None) -> Signal:
    """At every factor of a product left right^T the other factor; nothing at other leaves.

    A function of signals.

    Args:
      params: the params.
      pairs: (left, right) names of leaves ("encoder/left"); None: every matrix X is a factor of
        its own product X X^T.
      mask: the leaves that take part; default all.
    """

    def partners(context: Context, tree: Leaves) -> Leaves:
        flags = [True] * len(tree) if mask is None else selected(mask, tree, context)
        values: list[Any] = [MISSING] * len(tree)
        for i, j in _indices(tree, pairs):
            if flags[i]:
                values[i] = tree.values[j]
        return Leaves(values, tree.treedef)

    return lift_tree(partners, "partner_leaves", context=True)(params)


def _indices(tree: Leaves, pairs: Pairs) -> list[tuple[int, int]]:
    if pairs is None:
        is_matrix = (not is_missing(x) and x.ndim == 2 and x.size > 0 for x in tree.values)
        return [(i, i) for i, fits in enumerate(is_matrix) if fits]
    index = {joined(path): i for i, path in enumerate(leaf_names(tree.treedef))}
    found: list[tuple[int, int]] = []
    for left, right in pairs:
        for name in (left, right):
            if name not in index:
                raise FlowError(f"pairs: no leaf is named {name!r}; there are {', '.join(index)}")
        i, j = index[left], index[right]
        shapes = tree.values[i].shape, tree.values[j].shape
        if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
            raise FlowError(
                f"pairs: {left!r} and {right!r} have shapes {shapes[0]} and {shapes[1]}; the "
                "factors of left @ right^T are matrices with equally many columns"
            )
        found += [(i, j), (j, i)]
    if len({i for i, _ in found}) != len(found):
        raise FlowError("pairs: a leaf is in more than one pair")
    return found


def _solve_gram(x: jax.Array, factor: jax.Array, damping: float | jax.Array) -> jax.Array:
    x, factor = replicated(x), replicated(factor)
    gram = factor.T @ factor + damping * jnp.eye(factor.shape[-1], dtype=factor.dtype)
    root = linalg.cholesky(gram)
    # rounding can leave a singular matrix a positive pivot, by which the step would blow up
    pivots = jnp.diag(root) ** 2
    is_regular = jnp.all(pivots > ROUNDING * jnp.finfo(gram.dtype).eps * jnp.diag(gram))
    # what is not chosen is a number as well, or it would be NaN in the derivative
    solved = linalg.cho_solve(
        jnp.where(is_regular, root, jnp.eye(len(root), dtype=root.dtype)), x.T
    ).T
    return jnp.where(is_regular, solved, jnp.inf)


solve_gram = lift(
    _solve_gram,
    "solve_gram",
    doc="X (F^T F + damping I)^{-1}, by a Cholesky decomposition; infinite where it is "
    "singular, up to rounding.",
)

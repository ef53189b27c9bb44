"""Factorisations of many matrices in one batched call per kind."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from ..notation.checks import checked
from ..notation.functions import lift_tree
from ..notation.mapping import in_batches
from ..notation.sharding import explicit_axes, replicated
from ..notation.signal import Signal
from ..notation.stacks import parts_of
from ..notation.values import Leaves
from .spreading import share_axes, spread_batch

LARGE = 2**17
"""Entries of a batch that has a program of its own."""


@checked()
def solve_grouped(
    solve: Callable[..., Any], kinds: Sequence[Hashable], *columns: Sequence[jax.Array]
) -> list[jax.Array]:
    """`solve` of all entries of one kind at once.

    A function of arrays.

    Args:
      solve: `(kind, *batches) -> tree of batches`; treats every element on its own.
      kinds: for every entry what it must have in common with those it is batched with.
      *columns: its arguments, for every entry a batch each.

    Returns:
      For every entry its part of what `solve` returns.
    """
    groups: dict[tuple[Hashable, int | None], list[int]] = {}
    for i, kind in enumerate(kinds):
        arrays = [column[i] for column in columns]
        groups.setdefault((kind, i if _is_alone(arrays) else None), []).append(i)
    found: dict[int, Any] = {}
    for (kind, _), where in groups.items():
        done = solve(kind, *(_joined([column[i] for i in where]) for column in columns))
        if len(where) == 1:
            found[where[0]] = done
            continue
        counts = [columns[0][i].shape[0] for i in where]
        leaves, structure = jax.tree.flatten(done)
        parts = zip(*(parts_of(leaf, counts) for leaf in leaves), strict=True)
        results = (jax.tree.unflatten(structure, part) for part in parts)
        found.update(zip(where, results, strict=True))
    return [found[i] for i in range(len(kinds))]


def _is_alone(arrays: Sequence[jax.Array]) -> bool:
    """Whether it is not joined with others: the copy would be larger than its program is worth.

    On a mesh it is, as a few more matrices are spread more evenly; but each device has its share of
    what is spread already.
    """
    if explicit_axes(arrays[0]):
        return bool(share_axes(arrays[0]))
    return arrays[0].size > LARGE


def flattened(x: jax.Array) -> jax.Array:
    """Matrices as one batch: stacks that are spread as they are, others on every device."""
    if x.ndim == 3 and share_axes(x):
        return x
    return replicated(x).reshape(-1, *x.shape[-2:])


@checked()
def per_matrix(
    solve: Callable[[Any], Any], name: str, doc: str | None = None
) -> Callable[[Signal], Signal]:
    """Makes a function of batches of square matrices one of a signal of matrices.

    Part of the notation.

    All matrices of one size go through one call, whichever leaves they come from, and under an
    explicit mesh each device does its share of it.

    Args:
      solve: function of (batch, n, n) that treats every matrix on its own.
      name: what the node is called.
      doc: see `lift`.

    Returns:
      A function of signals whose leaves are arrays (..., n, n), or tuples of such; in place of
      every array the result has what `solve` returns for it.
    """

    def solved_rows(rows: list[tuple[Any, ...]]) -> list[Any]:
        matrices, structure = jax.tree.flatten([leaf for (leaf,) in rows])
        flat = list(map(flattened, matrices))
        kinds = [(x.shape[-1], x.dtype) for x in flat]
        results = solve_grouped(lambda _, batch: spread_batch(solve, batch), kinds, flat)
        stacks = (x.shape[:-2] for x in matrices)
        found: list[Any] = jax.tree.unflatten(structure, map(_restacked, results, stacks))
        return found

    def solved(tree: Leaves) -> Leaves:
        return in_batches(solved_rows, tree)

    return lift_tree(solved, name, doc=doc)


def _restacked(result: Any, stack: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: x.reshape(*stack, *x.shape[1:]), result)


def _joined(parts: list[jax.Array]) -> jax.Array:
    return parts[0] if len(parts) == 1 else jax.lax.concatenate(parts, 0)

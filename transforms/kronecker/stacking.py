"""Same-shaped leaves as one array with a leading batch axis, and leaves cut into blocks."""

import itertools
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation.checks import checked
from ..notation.functions import lift_tree
from ..notation.refusing import refusing
from ..notation.sharding import replicated, resharded
from ..notation.signal import Signal
from ..notation.stacks import parts_of, whole
from ..notation.values import MISSING, Leaves, is_missing
from .spreading import by_share, share_axes


class Cut(Protocol):
    """How a leaf becomes batches of tensors, and how these become the leaf again."""

    def cut(self, leaf: jax.Array) -> list[jax.Array]:
        """Batches of shape (count, *tensor shape)."""

    def join(self, batches: list[Any], shape: tuple[int, ...]) -> Any:
        """The leaf of that shape; the inverse of `cut`."""

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        """(count, tensor shape) of every batch of a leaf of that shape."""


@dataclass(frozen=True)
class Whole:
    """Every leaf is one tensor."""

    def cut(self, leaf: jax.Array) -> list[jax.Array]:
        """One batch of one tensor."""
        return [jax.lax.expand_dims(leaf, (0,))]

    def join(self, batches: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
        """The tensor itself."""
        return jax.lax.squeeze(batches[0], (0,))

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        """One tensor of the leaf's shape."""
        return [(1, shape)]


@checked()
def merge_dims(shape: tuple[int, ...], block_size: int, target_ndim: int = 1) -> tuple[int, ...]:
    """The shape with its neighbouring small dimensions merged, from the last to the first.

    A function of a shape.

    Dimensions of size 1 are dropped. A dimension is merged with those behind it while their
    product stays within `block_size` and more than `target_ndim` dimensions would remain.

    Args:
      shape: the shape of a leaf.
      block_size: the largest product of merged dimensions.
      target_ndim: the number of dimensions below which nothing is merged.
    """
    sizes = [n for n in shape if n != 1] or [1]
    merged = [sizes.pop()]
    while sizes:
        n = sizes.pop()
        if merged[0] * n <= block_size and len(merged) + len(sizes) + 1 > target_ndim:
            merged[0] *= n
        else:
            merged.insert(0, n)
    return tuple(merged)


@refusing
@dataclass(frozen=True)
class Blocks:
    """Leaves with merged dimensions, cut along each into pieces of at most `block_size`.

    Attributes:
      block_size: the longest side of a block.
      target_ndim: see `merge_dims`.
    """

    block_size: int
    target_ndim: int = 1

    def _parts(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], list[tuple[tuple[int, int, int], ...]]]:
        """The merged shape, and the (start, count, side) of full and last pieces by dimension."""
        merged = merge_dims(shape, self.block_size, self.target_ndim)
        sides = []
        for n in merged:
            full, rest = divmod(n, self.block_size)
            parts = [(0, full, self.block_size)] if full else []
            sides.append(parts + ([(n - rest, 1, rest)] if rest else []))
        return merged, list(itertools.product(*sides))

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        """Number and shape of the equal blocks."""
        _, parts = self._parts(shape)
        return [(prod(c for _, c, _ in part), tuple(s for *_, s in part)) for part in parts]

    def cut(self, leaf: jax.Array) -> list[jax.Array]:
        """One batch per block shape, the blocks in row-major order."""
        merged, parts = self._parts(leaf.shape)
        leaf = leaf.reshape(merged)
        batches = []
        for part in parts:
            piece = leaf[tuple(slice(at, at + count * side) for at, count, side in part)]
            piece = piece.reshape([size for _, count, side in part for size in (count, side)])
            order = len(part)
            axes = [*range(0, 2 * order, 2), *range(1, 2 * order, 2)]
            batches.append(piece.transpose(axes).reshape(-1, *(side for *_, side in part)))
        return batches

    def join(self, batches: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
        """The blocks in their places."""
        merged, parts = self._parts(shape)
        pieces = {}
        for part, batch in zip(parts, batches, strict=True):
            order = len(part)
            piece = batch.reshape([c for _, c, _ in part] + [side for *_, side in part])
            axes = [axis for i in range(order) for axis in (i, order + i)]
            pieces[tuple(at for at, *_ in part)] = piece.transpose(axes).reshape(
                [count * side for _, count, side in part]
            )
        for axis in reversed(range(len(merged))):
            rows: dict[Any, list[Any]] = {}
            for at, piece in pieces.items():
                rows.setdefault(at[:axis], []).append(piece)
            pieces = {
                at: row[0] if len(row) == 1 else jnp.concatenate(row, axis)
                for at, row in rows.items()
            }
        return pieces[()].reshape(shape)


WHOLE = Whole()


@checked()
def stack_same_shapes(signal: Signal, cut: Cut = WHOLE, spread: bool = False) -> Signal:
    """A signal whose leaves are stacks of the same-shaped leaves of another.

    A function of signals.

    Its tree is a dict from a shape, such as "64x64", to the stack of shape (batch, 64, 64). State
    that is kept behind it stays stacked between the steps. Leaves that a `split` leaves out, and
    those without elements, are no part of a stack; `unstack` is the way back.

    Args:
      signal: a tree signal whose leaves are arrays.
      cut: `Blocks(...)` stacks the blocks of leaves instead of whole leaves.
      spread: under an explicit mesh each stack, of whole leaves, is spread as the first of them is,
        and so is the state behind it; else each device has some of its matrices, see `by_share`.
    """
    return lift_tree(lambda tree: _stacked(tree, cut, spread), "stack_same_shapes")(signal)


@checked()
def unstack(stacked: Signal, like: Signal, cut: Cut = WHOLE) -> Signal:
    """The leaves of a stacked signal in their places.

    A function of signals.

    Args:
      stacked: a signal like the result of `stack_same_shapes`.
      like: the signal that was stacked.
      cut: what it was stacked with.
    """
    return lift_tree(lambda s, tree: _unstacked(s, tree, cut), "unstack", out=1)(stacked, like)


def _stacked(tree: Leaves, cut: Cut, spread: bool) -> Leaves:
    if not tree.values:
        return tree  # no params at all, or the placeholder that stands for them in optax
    batches: dict[str, list[Any]] = {}
    for leaf in tree.values:
        if _in_stack(leaf):
            for batch in cut.cut(leaf if spread else replicated(leaf)):
                batches.setdefault(_name(batch.shape[1:], batch.dtype), []).append(batch)
    alike = {name: [resharded(x, stack[0]) for x in stack] for name, stack in batches.items()}
    stacks = {name: whole(stack) for name, stack in alike.items()}
    return Leaves.of(stacks if spread else {name: by_share(x) for name, x in stacks.items()})


def _unstacked(stacked: Leaves, tree: Leaves, cut: Cut) -> Leaves:
    if not tree.values:
        return tree
    wanted = _wanted(tree, cut)
    stacks = {
        name: replicated(stack) if share_axes(stack) else stack
        for name, stack in stacked.tree().items()
    }
    pieces = {name: iter(parts_of(stack, wanted[name])) for name, stack in stacks.items()}
    values = []
    for leaf in tree.values:
        if not _in_stack(leaf):
            values.append(MISSING if is_missing(leaf) else jnp.zeros_like(leaf))
            continue
        names = [_name(shape, leaf.dtype) for _, shape in cut.shapes(leaf.shape)]
        batches = [next(pieces[name]) for name in names]
        values.append(resharded(cut.join(batches, leaf.shape), leaf))
    return Leaves(values, tree.treedef)


def _wanted(tree: Leaves, cut: Cut) -> dict[str, list[int]]:
    """How many elements of each stack every leaf in turn has."""
    counts: dict[str, list[int]] = {}
    for leaf in filter(_in_stack, tree.values):
        for count, shape in cut.shapes(leaf.shape):
            counts.setdefault(_name(shape, leaf.dtype), []).append(count)
    return counts


def _in_stack(leaf: jax.Array) -> bool:
    return not is_missing(leaf) and leaf.size > 0


def _name(shape: tuple[int, ...], dtype: DTypeLike) -> str:
    """The key of a stack; the usual dtype goes without saying."""
    name = "x".join(map(str, shape)) or "scalar"
    return name if dtype == jnp.float32 else f"{name}_{jnp.dtype(dtype).name}"

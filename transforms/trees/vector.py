"""A whole tree as one vector, and back."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import lift_tree
from ..notation.mapping import map_kinds, map_leaves
from ..notation.sharding import explicit_axes, replicated, resharded
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.values import MISSING, Leaves, is_missing, promoting
from ..notation.vectors import split_vector, vector_of

ONE_LEAF = jax.tree.structure(0)


@checked()
def flatten_tree(signal: Signal) -> Signal:
    """A tree as a signal with one leaf: all entries in tree order, each leaf row-major.

    A function of signals.

    Leaves on the other side of a `split` are left out. Complex leaves become their real parts
    followed by their imaginary parts, so that inner products are those of real spaces. Whatever
    takes a signal takes the result; `unflatten_tree` brings it back.

    Args:
      signal: a tree signal.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms import flatten_tree, flow, leaf_norm, unflatten_tree
      >>> def step(g):
      ...     flat = flatten_tree(g)
      ...     return unflatten_tree(flat / leaf_norm(flat), g)
      >>> tree = {"a": jnp.array([3.0]), "b": jnp.array(4.0)}
      >>> normalised = flow(step)
      >>> updates, _ = normalised.update(tree, normalised.init(tree))
      >>> round(float(updates["b"]), 6)
      0.8
    """
    return _flatten(signal)


@checked()
def unflatten_tree(flat: Signal, like: Signal) -> Signal:
    """The tree whose entries a signal with one leaf holds; the inverse of `flatten_tree`.

    A function of signals.

    Args:
      flat: a signal with one leaf.
      like: the tree signal whose shapes and dtypes it takes.
    """
    return _unflatten(flat, like)


def one_leaf(value: Any) -> Leaves:
    """A value, or a tuple of them, as the only leaf of a tree."""
    return Leaves((value,), ONE_LEAF)


def flat_size(tree: Leaves) -> int:
    """The number of real entries."""
    return sum(map(_real_size, _abstract(tree)))


def flat_dtype(tree: Leaves) -> jnp.dtype:
    """The real dtype that holds all entries."""
    kinds = {jnp.finfo(leaf.dtype).dtype for leaf in _abstract(tree)}
    return promoting(jnp.result_type)(*kinds) if kinds else jnp.dtype(jnp.float32)


def _abstract(tree: Leaves) -> list[Any]:
    """The leaves that are there, of which only shapes and dtypes are read."""
    return [tree.abstract(i) for i, leaf in enumerate(tree.held) if not is_missing(leaf)]


def to_vector(tree: Leaves) -> jax.Array:
    """All entries that are there, as one real vector."""
    dtype = flat_dtype(tree)
    if all(map(is_missing, tree.held)):
        return jnp.zeros(0, dtype)
    return vector_of(map_leaves(lambda x: _entries(replicated(x)).astype(dtype), tree, most=TINY))


def from_vector(vector: jax.Array, like: Leaves) -> Leaves:
    """The leaves whose entries a vector holds, in the dtypes of `like`."""
    abstract = _abstract(like)
    if not abstract:
        return like
    pieces = split_vector(vector, list(map(_real_size, abstract)))
    if any(map(explicit_axes, abstract)):
        parts = iter(pieces.values)
        return like.map(lambda leaf: resharded(_shaped(next(parts), leaf), leaf))
    places = [i for i, leaf in enumerate(like.held) if not is_missing(leaf)]
    kinds: list[Any] = [None] * len(like)
    for i, leaf in zip(places, abstract, strict=True):
        kinds[i] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    spread = Leaves([*pieces.held, *[MISSING] * (len(like) - len(places))], like.treedef)
    spread = spread.with_stacks(pieces.stacks).moved(dict(enumerate(places)))
    return map_kinds(lambda kind, part: _shaped(part, kind), kinds, spread, most=TINY)


def _real_size(leaf: jax.Array | jax.ShapeDtypeStruct) -> int:
    size = math.prod(jnp.shape(leaf))
    return 2 * size if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else size


def _entries(leaf: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(leaf):
        return jnp.concatenate([jnp.real(leaf).reshape(-1), jnp.imag(leaf).reshape(-1)])
    return leaf.reshape(-1)


def _shaped(entries: jax.Array, leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        real, imaginary = entries.reshape(2, *leaf.shape)
        return jax.lax.complex(real, imaginary).astype(leaf.dtype)
    return entries.reshape(leaf.shape).astype(leaf.dtype)


_flatten = lift_tree(lambda tree: one_leaf(to_vector(tree)), "flatten_tree")
_unflatten = lift_tree(
    lambda flat, like: from_vector(flat.values[0], like), "unflatten_tree", out=1
)

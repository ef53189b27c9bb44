"""The axis along which workers lie: of a mesh inside `jax.shard_map`, or of a `jax.vmap`.

Arrays in, arrays out. With `axis_name=None` there is one worker.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ..notation.errors import FlowError
from ..notation.members import all_varying, axes_of, varying
from ..notation.shapes import UNKNOWN
from ..notation.values import Leaves

Tree = TypeVar("Tree")


def is_bound(axis_name: str | None) -> bool:
    """Whether the program that is being traced runs along that axis."""
    try:
        return axis_name is not None and jax.lax.axis_size(axis_name) > 0
    except NameError:
        return False


def require_axis(label: str, axis_name: str | None) -> None:
    """Raises FlowError where there is no axis of that name."""
    if axis_name is not None and not is_bound(axis_name):
        raise FlowError(
            f"{label}: axis_name={axis_name!r} is no axis here; run update inside jax.shard_map "
            f"over a mesh with an axis {axis_name!r}, or under jax.vmap(..., "
            f"axis_name={axis_name!r})"
        )


def count_workers(axis_name: str | None) -> int:
    """How many there are."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def worker_index(axis_name: str | None) -> jax.Array:
    """The number of the worker that asks, from 0."""
    return jnp.zeros((), jnp.int32) if axis_name is None else jax.lax.axis_index(axis_name)


def own(tree: Tree, axis_name: str | None) -> Tree:
    """The tree as one that differs from worker to worker, and says so in its types."""
    if axis_name is None or not is_manual(axis_name):
        return tree
    return all_varying(tree, frozenset((axis_name,)))


def is_manual(axis_name: str | None) -> bool:
    """Whether the axis is one of a mesh, along which types may vary."""
    return axis_name in jax.sharding.get_abstract_mesh().manual_axes


def gather(tree: Tree, axis_name: str | None) -> Tree:
    """Every array of every worker, stacked on a new leading axis; the same on all of them."""
    if axis_name is None:
        return jax.tree.map(lambda x: x[None], tree)
    if not is_manual(axis_name):
        return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name), tree)
    return jax.tree.map(
        lambda x: jax.lax.all_gather(x, axis_name, to="invarying"), own(tree, axis_name)
    )


def total(tree: Tree, axis_name: str | None) -> Tree:
    """The sum over the workers, the same on all of them."""
    if axis_name is None:
        return tree
    summed: Tree = jax.tree.map(lambda x: jax.lax.psum(x, axis_name), own(tree, axis_name))
    return summed


def mean(tree: Tree, axis_name: str | None) -> Tree:
    """The mean over the workers, the same on all of them."""
    if axis_name is None:
        return tree
    count = count_workers(axis_name)
    return jax.tree.map(lambda x: (x / count).astype(x.dtype), total(tree, axis_name))


def size_of(tree: Any) -> int:
    """Bytes of all arrays in a tree, abstract or not."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def along(axis_name: str | None, fn: Callable[..., Any], workers: int = 1) -> Callable[..., Any]:
    """What a function of trees that speaks along the axis gives, in abstract values.

    Args:
      axis_name: the axis; where it is not there, as in an `init` that runs outside, so many
        workers are put in its place.
      fn: `(context, *values) -> value`.
      workers: how many.
    """

    def out(context: Any, *values: Any) -> Leaves:
        def found() -> Leaves:
            return fn(context, *_zeros(values))

        if axis_name is None or is_bound(axis_name):
            return jax.eval_shape(found)
        stacked = jax.vmap(found, axis_name=axis_name, axis_size=workers)
        return jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], stacked()))

    return out


def _zeros(values: Any) -> Any:
    """Arrays in place of abstract values, varying along the same axes.

    An input that only `update` can tell counts as one that is not given.
    """

    def filled(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return varying(jnp.zeros(leaf.shape, leaf.dtype), axes_of(leaf))

    return [
        value.map(lambda leaf: jax.tree.map(filled, leaf))
        if isinstance(value, Leaves)
        else jax.tree.map(filled, None if value is UNKNOWN else value)
        for value in values
    ]

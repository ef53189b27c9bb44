"""Leaves with several sides: a tuple of arrays, such as the two factors of a matrix."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .errors import FlowError


def by_side(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays that treats tuples of arrays entry by entry.

    What is no tuple goes to every entry; an entry that is None stays None.
    """

    @functools.wraps(fn)
    def applied(*values: Any, **constants: Any) -> Any:
        sided = [value for value in values if isinstance(value, tuple)]
        if not sided:
            return fn(*values, **constants)
        structure: jax.tree_util.PyTreeDef = jax.tree.structure(sided[0])
        columns = [
            structure.flatten_up_to(value)
            if isinstance(value, tuple)
            else [value] * structure.num_leaves
            for value in values
        ]
        rows = zip(*columns, strict=True)
        return jax.tree.unflatten(structure, [fn(*row, **constants) for row in rows])

    return applied


def matrix_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b of matrices, with batch axes in front."""
    return _matrix(a, "a @ b") @ _matrix(b, "a @ b")


def transposed(x: jax.Array) -> jax.Array:
    """The matrices with their last two axes exchanged."""
    return jnp.swapaxes(_matrix(x, "x.T"), -1, -2)


def _matrix(x: jax.Array, what: str) -> jax.Array:
    if getattr(x, "ndim", 2) < 2:
        raise FlowError(
            f"`{what}` needs matrices, and a leaf has shape {x.shape}: "
            "take the matrices apart with split(g, matrices) and merge() the results"
        )
    return x

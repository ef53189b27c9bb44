"""Trees as vectors, and products with the Hessian of a loss."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from ...transforms import FlowError
from ...transforms.notation.roots import balanced, power_of_two_below
from ...transforms.notation.values import working

Params = TypeVar("Params")

LossOf: TypeAlias = Callable[[Params], jax.Array]
"""`params -> scalar`."""

Loss: TypeAlias = LossOf[Any]

OF_A_LOSS = {"value_fn": lambda params: jnp.sum(params**2), "params": np.ones(30, np.float32)}
"""What the catalogue builds a measurement of a loss with."""


def wide(tree: Params) -> Params:
    """A tree in at least float32."""
    widened: Params = jax.tree.map(working, tree)
    return widened


def dot(a: optax.Params, b: optax.Params) -> jax.Array:
    """The inner product of two trees."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), wide(a), wide(b))
    return balanced(jax.tree.leaves(products))


def in_unit(tree: Params) -> Params:
    """A tree in at least float32, over the power of two below its largest entry: squares count."""
    arrays = wide(jax.tree.map(jnp.asarray, tree))
    largest = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(arrays)]
    unit = power_of_two_below(balanced(largest, jnp.maximum))
    scaled: Params = jax.tree.map(lambda x: x / unit.astype(x.dtype), arrays)
    return scaled


def check_real(label: str, name: str, tree: object) -> None:
    """Raises FlowError, by name, for a tree with leaves that are no real arrays."""
    for leaf in jax.tree.leaves(tree):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = dtype or type(leaf).__name__
            raise FlowError(f"{label}: {name} must be real arrays, one is {kind}: {leaf!r}")


def checked_loss(label: str, value_fn: object, params: object) -> Loss:
    """The loss itself, of real params; FlowError, by name, for anything else."""
    check_real(label, "params", params)
    if not callable(value_fn):
        raise FlowError(f"{label}: value_fn must be a function params -> loss, not {value_fn!r}")
    out: Any = jax.eval_shape(value_fn, params)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise FlowError(f"{label}: value_fn must return a real scalar loss, it returned {out}")
    return value_fn


def hessian_of(label: str, value_fn: object, params: object) -> tuple[Callable[[Any], Any], Any]:
    """`vector -> Hessian times vector` on flat vectors, and the params as one."""
    loss = checked_loss(label, value_fn, params)
    flat, unravel = ravel_pytree(wide(params))

    def value(vector: jax.Array) -> jax.Array:
        return loss(jax.tree.map(lambda x, p: x.astype(p.dtype), unravel(vector), params))

    return lambda v: jax.jvp(jax.grad(value), (flat,), (v,))[1], flat

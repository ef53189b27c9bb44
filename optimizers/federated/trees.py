"""Arithmetic of whole trees, and of messages in slots of which some are empty."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import optax

from ...transforms import FlowError
from ...transforms.notation.known import repeat
from ...transforms.notation.rows import sum_of_rows
from ...transforms.notation.values import working

Tree = TypeVar("Tree")

GradientFunction: TypeAlias = Callable[[optax.Params, int | jax.Array], optax.Updates]
"""`(params, number of the local step) -> gradient`."""


def wide(tree: optax.Params) -> optax.Params:
    """The leaves in at least float32, in which clients and servers compute."""
    return jax.tree.map(lambda x: working(jnp.asarray(x)), tree)


def zeros(tree: optax.Params) -> optax.Params:
    """Zeros like the leaves, in at least float32."""
    return jax.tree.map(jnp.zeros_like, wide(tree))


def like(tree: optax.Params, params: optax.Params) -> optax.Params:
    """The leaves in the dtypes of the params."""
    return jax.tree.map(lambda x, p: x.astype(jnp.asarray(p).dtype), tree, params)


def plus(x: optax.Params, scale: Any, y: optax.Params) -> optax.Params:
    """x + scale y, in the precision of x."""

    def added(a: jax.Array, b: jax.Array) -> jax.Array:
        return a + jnp.asarray(scale, jnp.finfo(a.dtype).dtype) * b

    return jax.tree.map(added, x, y)


def minus(x: optax.Params, y: optax.Params) -> optax.Params:
    """x - y."""
    return jax.tree.map(jnp.subtract, x, y)


def times(scale: Any, x: optax.Params) -> optax.Params:
    """A number times a tree, in the tree's precision."""
    return jax.tree.map(lambda a: jnp.asarray(scale, jnp.finfo(a.dtype).dtype) * a, x)


def over(tree: optax.Params, count: int | jax.Array) -> optax.Params:
    """A tree divided by a count.

    JAX divides by a count in float32 even in a float64 run, so it becomes a float first.
    """
    return jax.tree.map(lambda a: a / jnp.asarray(count, jnp.finfo(a.dtype).dtype), tree)


def select(condition: jax.Array, x: Tree, y: Tree) -> Tree:
    """x where a scalar condition holds, else y."""
    chosen: Tree = jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)
    return chosen


def total(
    messages: optax.Params, clients: jax.Array, weights: jax.Array | None = None
) -> optax.Params:
    """The sum over the slots in which there is a client, each times a weight."""
    there = clients >= 0

    def summed(x: jax.Array) -> jax.Array:
        shape = (-1, *[1] * (x.ndim - 1))
        present = jnp.where(there.reshape(shape), x, jnp.zeros_like(x))
        if weights is not None:
            present = present * weights.astype(jnp.finfo(x.dtype).dtype).reshape(shape)
        return sum_of_rows(present)

    return jax.tree.map(summed, messages)


def mean(messages: optax.Params, clients: jax.Array) -> optax.Params:
    """The mean over the slots in which there is a client; 0 without any."""
    return over(total(messages, clients), jnp.maximum(jnp.sum(clients >= 0), 1))


def local_steps(
    step: Callable[[int | jax.Array, Tree], Tree],
    carry: Tree,
    num_steps: jax.Array | None,
    num_local_steps: int | None,
) -> Tree:
    """A client's steps: `step(k, carry)` for k from 0.

    Args:
      step: one of them.
      carry: what goes through them.
      num_steps: how many, maybe traced; None: all.
      num_local_steps: how many there are at most; None: there is no such number.
    """
    if num_local_steps is None:
        end: Tree = jax.lax.fori_loop(0, num_steps, step, carry)
        return end
    if num_steps is None:
        return repeat(num_local_steps, step, carry)

    def masked(k: int | jax.Array, now: Tree) -> Tree:
        return select(k < num_steps, step(k, now), now)

    return repeat(num_local_steps, masked, carry)


def gradient(
    grad_fn: GradientFunction, point: optax.Params, k: int | jax.Array, params: optax.Params
) -> optax.Params:
    """A client's gradient at a point, asked for in the params' dtypes, given in ours."""
    found = wide(grad_fn(like(point, params), k))
    (ours, shape), (theirs, wanted) = _kind(found), _kind(point)
    if (ours, shape) != (theirs, wanted):
        raise FlowError(
            f"the gradient of a client must be a tree like the params: it is {ours} with shapes "
            f"{shape}, they are {theirs} with shapes {wanted}"
        )
    return found


def _kind(tree: optax.Params) -> tuple[jax.tree_util.PyTreeDef, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)]

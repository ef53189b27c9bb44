"""The lower variable as a function of the upper one, of which both are learned together."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...transforms.notation.values import working
from .stepper import owned


class BestResponse(NamedTuple):
    """A map from the upper variable to the lower one: base + response * (gates of the upper).

    Attributes:
      base: a tree like the lower variable.
      response: another, in at least float32.
      gates: for each of its leaves an array (entries of the upper variable, outputs of the leaf).
    """

    base: optax.Params
    response: optax.Params
    gates: optax.Params


def started(lower: optax.Params, upper: optax.Params, key: jax.Array) -> BestResponse:
    """The map that gives `lower` everywhere, ready to learn.

    Gates are 0, so that the response has no effect; its entries are random signs over the root of
    the entries that one output has, so that every gate has the same way to go.
    """
    entries = len(as_vector(upper))
    leaves, structure = jax.tree.flatten(lower)
    keys = jax.random.split(key, max(len(leaves), 1))

    def signs(leaf: jax.Array, fresh: jax.Array) -> jax.Array:
        dtype, outputs = working(leaf).dtype, leaf.shape[-1:]
        fan_in = max(leaf.size // max(math.prod(outputs), 1), 1)
        drawn = jax.random.rademacher(fresh, leaf.shape, dtype)
        return drawn / jnp.sqrt(jnp.asarray(fan_in, dtype))

    responses = [signs(leaf, fresh) for leaf, fresh in zip(leaves, keys, strict=False)]
    gates = [jnp.zeros((entries, *leaf.shape[-1:]), working(leaf).dtype) for leaf in leaves]
    return BestResponse(
        owned(lower),
        jax.tree.unflatten(structure, responses),
        jax.tree.unflatten(structure, gates),
    )


def responded(best_response: BestResponse, upper: optax.Params) -> optax.Params:
    """The lower variable at an upper one, in the dtypes of the base."""
    vector = as_vector(upper)

    def of_leaf(base: jax.Array, response: jax.Array, gates: jax.Array) -> jax.Array:
        gate = jnp.matmul(vector.astype(gates.dtype), gates, precision="highest")
        gate = gate.reshape((1,) * (base.ndim - gate.ndim) + gate.shape)
        return (working(base) + response * gate).astype(base.dtype)

    return jax.tree.map(of_leaf, *best_response)


def as_vector(tree: optax.Params) -> jax.Array:
    """All entries of a tree as one vector."""
    return jnp.concatenate([working(leaf).ravel() for leaf in jax.tree.leaves(tree)])

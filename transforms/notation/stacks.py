"""Arrays of one shape as one with a leading axis, and parts of it again, cheap to compile."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .known import choose, is_known

FEW = 8
"""So many slices of one stack are compiled one by one."""


def whole(batches: Sequence[jax.Array]) -> jax.Array:
    """One array of all batches, made once: XLA would make it anew, leaf by leaf, for every use."""
    return jax.lax.optimization_barrier(jax.lax.concatenate(batches, 0))


def parts_of(stack: jax.Array, counts: Sequence[int]) -> list[jax.Array]:
    """A stack split along its leading axis into parts of these lengths.

    For the CPU, XLA compiles a kernel for every slice, which for hundreds of leaves takes longer
    than all the rest. Equal slices at places that it does not know when compiling share a kernel.

    Args:
      stack: any array.
      counts: the lengths, which add up to that of the stack.
    """
    if len(counts) <= FEW or is_known(stack):
        return list(jax.lax.split(stack, counts))
    lengths = tuple(counts)
    return jax.lax.platform_dependent(
        stack,
        cpu=lambda stack: _split_at_hidden_places(stack, lengths),
        default=lambda stack: jax.lax.split(stack, lengths),
    )


def _split_at_hidden_places(stack: jax.Array, counts: tuple[int, ...]) -> list[jax.Array]:
    starts = np.array([0, *itertools.accumulate(counts)][:-1], np.int32)
    certain = jax.lax.optimization_barrier(jnp.bool_(True))
    places = choose(certain, lambda: list(starts), lambda: list(starts + 1))
    origin = (jnp.int32(0),) * (stack.ndim - 1)
    return [
        jax.lax.dynamic_slice(
            stack, (at, *origin), (count, *stack.shape[1:]), allow_negative_indices=False
        )
        for at, count in zip(places, counts, strict=True)
    ]


def stacked(arrays: Sequence[jax.Array]) -> jax.Array:
    """Arrays that are alike as one, with a leading axis; keys too."""
    return whole([jax.lax.expand_dims(x, (0,)) for x in arrays])


def unstacked(stack: jax.Array) -> list[jax.Array]:
    """The arrays of a stack."""
    return [jax.lax.squeeze(x, (0,)) for x in parts_of(stack, (1,) * stack.shape[0])]

"""The last few values of a signal."""

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import lift
from ..notation.hyperparameters import DType, Size
from ..notation.signal import Signal
from ..notation.steps import delay, step_count
from .last_values import slots_like


@transformation()
def window(size: Size, *, slot: Signal | None = None, dtype: DType | None = None) -> Flow:
    """The last `size` values of a signal, stacked on a new leading axis of each leaf.

    A transformation to send signals through.

    A ring: step t writes slot (t - 1) mod size, so the slots are not in order of age. All are
    zeros at the start. Of a signal that went through `flatten_tree` it is a matrix whose rows
    are whole gradients.

    Args:
      size: number of slots.
      slot: which slot is written, in place of the oldest: a scalar signal, or a tree of scalars,
        one per leaf. Nothing is written where it is negative or at least `size`.
      dtype: storage dtype; default that of the signal, at least float32.
    """

    def step(g: Signal) -> Signal:
        past = delay(slots_like(g, size), dtype=dtype)
        kept = g if dtype is None else _rounded(g, dtype=dtype)
        return past << write_slot(past, kept, ring_slot(size) if slot is None else slot)

    return flow(step)


@checked()
def ring_slot(size: int) -> Signal:
    """The slot of a ring that is written at this step: (t - 1) mod size.

    A function of signals.
    """
    return lift(lambda t: (t - 1) % size, "ring_slot")(step_count())


@checked()
def write_slot(stack: Signal, value: Signal, slot: Signal) -> Signal:
    """A stack with one slot replaced; a slot that it does not have leaves it as it is.

    A function of signals.

    Args:
      stack: leaves with the slots on the leading axis.
      value: leaves without it.
      slot: scalar signal, or tree of scalars.
    """
    return _write(stack, value, slot)


def _written(stack: jax.Array, value: jax.Array, slot: jax.Array) -> jax.Array:
    fits = (slot >= 0) & (slot < stack.shape[0])
    old = jax.lax.dynamic_index_in_dim(stack, slot, 0, keepdims=False)
    new = jnp.where(fits, value.astype(stack.dtype), old)
    return jax.lax.dynamic_update_index_in_dim(stack, new, slot, 0)


_write = lift(_written, "write_slot")
_rounded = lift(lambda x, dtype: x.astype(dtype).astype(x.dtype), "rounded")

"""A buffer that keeps the most important values rather than the last."""

import jax
import jax.numpy as jnp

from ...transforms import Decay, Signal, delay, lift, step_count
from ...transforms.accumulate import write_slot
from ...transforms.accumulate.last_values import slots_like
from ...transforms.notation.rows import sum_of_rows


def mean_of_buffer(value: Signal, priority: Signal, capacity: int, decay: Decay) -> Signal:
    """The mean of what the buffer holds; then `value` enters it, if its priority suffices.

    One value is offered per step. While there is room it is appended; afterwards it replaces the
    entry of least priority if its own is strictly greater, and is dropped otherwise. All
    priorities, the new one included, then decay. The mean of an empty buffer is 0.

    Args:
      value: what is offered.
      priority: how important it is: a number per leaf, or a scalar for all leaves together.
      capacity: number of slots.
      decay: by which all priorities are multiplied at each step, in [0, 1].

    References:
      McRae et al. 2022, Memory Augmented Optimizers for Deep Learning (critical gradients).
    """
    t = step_count()
    entries = delay(slots_like(value, capacity), name="entries")
    priorities = delay(slots_like(priority, capacity), name="priorities")
    slot = lift(_slot, "slot")(priorities, priority, t)
    entries << write_slot(entries, value, slot)
    priorities << decay * write_slot(priorities, priority, slot)
    return lift(_mean, "mean_of_buffer")(entries, t)


def _slot(priorities: jax.Array, priority: jax.Array, t: jax.Array) -> jax.Array:
    """Where the new value goes; the capacity itself, past the last slot, drops it."""
    capacity = priorities.shape[0]
    least = jnp.argmin(priorities)
    replaced = jnp.where(priority > priorities[least], least, capacity)
    return jnp.where(t <= capacity, t - 1, replaced)


def _mean(stack: jax.Array, t: jax.Array) -> jax.Array:
    held = jnp.clip(t - 1, 1, stack.shape[0])
    return sum_of_rows(stack) / held.astype(stack.real.dtype)

"""What is done to one array, done to every part of a stack, and what it may ask of the whole stack.

A branch that each part takes by itself is no branch: both sides are computed. One that all parts
take together is.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from .members import inside_shard_map

CHEAP_TO_READ_TWICE = 2**16
"""Entries of an array, all parts of its stack together, that stays in a cache between readings."""

_STACKS: ContextVar[tuple[tuple[str, int], ...]] = ContextVar("stacks", default=())
"""The names of the axes that are mapped over, and their lengths."""


def stackwise(fn: Callable[..., Any], count: int) -> Callable[..., Any]:
    """`jax.vmap(fn)` of stacks of so many parts."""
    if inside_shard_map():  # where JAX 0.10 knows no collective over an axis that is mapped over
        return jax.vmap(fn)

    def mapped(*stacks: Any) -> Any:
        outer = _STACKS.get()
        name = f"stack {len(outer)}"

        def of_part(*parts: Any) -> Any:
            token = _STACKS.set((*outer, (name, count)))
            try:
                return fn(*parts)
            finally:
                _STACKS.reset(token)

        return jax.vmap(of_part, axis_name=name)(*stacks)

    return mapped


def is_cheap_to_read_twice(x: jax.Array) -> bool:
    """Whether the array, with all others of its stack, stays in a cache between two readings."""
    entries = x.size
    for _, count in _STACKS.get():
        entries *= count
    return entries <= CHEAP_TO_READ_TWICE


def throughout(condition: jax.Array) -> jax.Array:
    """Whether it holds for all entries, and for all parts of the stack."""
    holds = jnp.all(condition)
    names = tuple(name for name, _ in _STACKS.get())
    return jax.lax.psum(jnp.where(holds, 0, 1), names) == 0 if names else holds

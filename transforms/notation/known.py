"""Control flow that needs no compilation where its course is known, as it is without jit.

JAX compiles a branch or a loop anew for every new function that it is made of, and the closures
of a step are new ones at every step: outside jit each update would compile. There the condition
is a number, so the branch is simply taken, and the loop runs in Python.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from .members import alike, axes_of, inside_shard_map, union_of, varying

Value = TypeVar("Value")
Carry = TypeVar("Carry")


def is_known(value: object) -> bool:
    """Whether all arrays in `value` are numbers, not yet to be computed."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def choose(
    condition: bool | jax.Array,
    taken: Callable[..., Value],
    other: Callable[..., Value],
    *args: Any,
    check_both: bool = False,
) -> Value:
    """`jax.lax.cond`.

    Args:
      condition: a boolean.
      taken: what runs if it holds.
      other: what runs otherwise.
      *args: handed to either.
      check_both: traces the branch that is known to rest, without computing it, so that it refuses
        what it would refuse under jit.
    """
    if is_known(condition):
        runs, rests = (taken, other) if condition else (other, taken)
        if check_both:
            jax.eval_shape(rests, *args)
        return runs(*args)
    if inside_shard_map():
        taken, other = _of_one_type(condition, (taken, other), args)
    chosen: Value = jax.lax.cond(condition, taken, other, *args)
    return chosen


def made_once(*values: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays that are each computed in one place.

    XLA's compiler for the CPU would make what is cheap anew in every kernel that reads it: a sum
    over hundreds of leaves in the kernels of hundreds of leaves. Into a branch it does not look.
    The branch computes what it returns: for a value that it handed on, XLA would look for a buffer
    by all that reads it and all that was before, which for hundreds of leaves takes minutes.
    """
    if is_known(values):
        return values
    found: tuple[jax.Array, ...] = jax.lax.platform_dependent(
        *values, cpu=_behind_a_branch, default=lambda *values: values
    )
    return found


def _behind_a_branch(*values: jax.Array) -> tuple[jax.Array, ...]:
    turned = tuple(map(_turned, values))
    return unseen(lambda: tuple(map(_turned, turned)), lambda: turned)


def unseen(taken: Callable[..., Value], other: Callable[..., Value], *args: Any) -> Value:
    """What `taken` gives, behind a branch that XLA cannot resolve and does not look into.

    Args:
      taken: what runs.
      other: what never runs, and gives something else of the same shapes.
      *args: handed to either.
    """
    certain = jax.lax.optimization_barrier(jnp.bool_(True))
    return choose(certain, taken, other, *args)


def _turned(value: jax.Array) -> jax.Array:
    """Done twice it gives the value, to the bit."""
    return -value if jnp.issubdtype(value.dtype, jnp.inexact) else ~value


def _of_one_type(
    condition: bool | jax.Array, branches: tuple[Callable[..., Value], ...], args: tuple[Any, ...]
) -> tuple[Callable[..., Value], ...]:
    """The branches, whose outputs vary along the same axes."""
    found = union_of(*(jax.eval_shape(branch, *args) for branch in branches))
    own = axes_of(condition)

    def cast(branch: Callable[..., Value]) -> Callable[..., Value]:
        return lambda *args: jax.tree.map(
            lambda leaf, axes: varying(leaf, axes | own), branch(*args), found
        )

    return tuple(map(cast, branches))


def _closed(body: Callable[[Carry], Carry], carry: Carry) -> tuple[Callable[[Carry], Carry], Carry]:
    """A loop's body and first carry, which vary along the same axes before and after."""
    if not inside_shard_map():
        return body, carry
    axes: list[frozenset[str]] = []
    while axes != (axes := jax.tree.leaves(union_of(carry))):
        carry = alike(carry, jax.eval_shape(body, carry))
    return (lambda now: alike(body(now), now)), carry


def repeat(times: int, body: Callable[[int | jax.Array, Carry], Carry], carry: Carry) -> Carry:
    """`jax.lax.fori_loop` from 0 to before `times`.

    As soon as the carry is no longer known, JAX's loop does the rest.
    """
    for i in range(times):
        if not is_known(carry):
            _, carry = _closed(partial(body, i), carry)
            return jax.lax.fori_loop(i, times, lambda j, now: alike(body(j, now), now), carry)
        carry = body(i, carry)
    return carry


def summed(count: int, term: Callable[[int | jax.Array], Value]) -> Value:
    """The sum of `term` of the numbers below `count`; of several it is compiled once.

    Args:
      count: at least 1.
      term: from a number to a tree of arrays.
    """
    if count == 1:
        return term(0)

    def zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros(x.shape, x.dtype, device=x.sharding)

    nothing: Value = jax.tree.map(zeros, jax.eval_shape(term, 0))
    return repeat(count, lambda i, total: jax.tree.map(jnp.add, total, term(i)), nothing)


def repeat_while(
    going: Callable[[Carry], bool | jax.Array], body: Callable[[Carry], Carry], carry: Carry
) -> Carry:
    """`jax.lax.while_loop`, as `repeat`."""
    while is_known(carry) and is_known(goes_on := going(carry)):
        if not goes_on:
            return carry
        carry = body(carry)
    return jax.lax.while_loop(going, *_closed(body, carry))


def each(fn: Callable[[Any], Value], rows: Any, beside: object) -> Value:
    """`jax.lax.map`; `beside` is what `fn` closes over, by which it is seen whether jit is on."""
    if not is_known((rows, beside)):
        return jax.lax.map(fn, rows)
    count = len(jax.tree.leaves(rows)[0])
    done = [fn(jax.tree.map(lambda x, i=i: x[i], rows)) for i in range(count)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *done)

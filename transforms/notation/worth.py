"""What is worth a stack, or a call: less is done to every leaf where it stands."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from .crowds import crowds, is_crowded
from .roots import clamped
from .stacks import TINIER
from .tracing import is_program
from .values import Part

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

COPIED = 4
"""Operations for every array that goes into a stack or comes out of it: less is not worth it."""

COPIED_LARGER = 6.5
"""The same for arrays of more than `TINIER` entries, whose copies a step waits for."""

COPIED_ONCE = 1.4
"""The same for tiny arrays where a stack serves several parts of a step."""

ALIKE = 3
"""So many leaves that are alike are traced once."""

CALL = 4
"""Operations that take as long to trace as a call of a function that is traced."""


def traced_once(fn: Callable[..., Any], rows: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
    """`fn` of the rows that are alike, one function that is called for each; not of the others.

    Args:
      fn: `(*row) -> result`, trees of arrays; what is less than a call is left to others, too.
      rows: by their places.
    """
    places, values = list(rows), list(rows.values())
    found: dict[int, Any] = {}
    for where in crowds(values, sys.maxsize, ALIKE) if is_crowded(values) else ():
        program, _ = program_of(fn, *values[where[0]])
        if program and operations(program.jaxpr) > CALL:
            once = jax.jit(fn)
            found |= {places[i]: once(*values[i]) for i in where}
    return found


def program_of(fn: Callable[..., Any], *args: Any) -> tuple["ClosedJaxpr | None", Any]:
    """What `fn` does, and the shapes of what it makes.

    None where it fails, and says itself what is wrong, and at which leaf.
    """
    try:
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    except (TypeError, ValueError):
        return None, None
    return program, shapes


def is_worth_it(
    fn: Callable[..., Any], row: Sequence[Any], passed_on: Sequence[bool] | None = None
) -> bool:
    """Whether what `fn` does to a row is more than to put it into a stack and to take it out.

    What is in a stack already need not be put there, but taken out for anything else.

    Args:
      fn: makes trees of arrays of a row.
      row: arrays.
      passed_on: where other parts of a step may go on with stacks, of what is made whether only
        they read it.
    """
    leaves = [x.abstract if type(x) is Part else x for x in row]
    program, shapes = program_of(fn, leaves)
    if program is None:
        return False
    ready = [jax.typeof(x) for x in jax.tree.leaves([x.abstract for x in row if type(x) is Part])]
    arrays = (*program.in_avals, *program.out_avals)
    cost = _cost
    if passed_on is not None and all(map(is_tiny, arrays)):
        made = zip(shapes, passed_on, strict=True)
        arrays = (*program.in_avals, *jax.tree.leaves([x for x, free in made if not free]))
        cost = _cost_of_one
    copied = sum(map(cost, arrays)) - 2 * sum(map(cost, ready))
    return not program.effects and operations(program.jaxpr) > copied


def pays(equations: Sequence["JaxprEqn"], arrays: Sequence[Any]) -> bool:
    """Whether these operations are more than to copy these arrays into stacks or out of them."""
    return count_of(equations) > sum(map(_cost, arrays))


def _cost(array: Any) -> float:
    return COPIED if is_tiny(array) else COPIED_LARGER


def _cost_of_one(array: Any) -> float:
    return COPIED_ONCE


def is_tiny(array: Any) -> bool:
    """Whether it has so few entries that a copy costs no more than to start a kernel."""
    return math.prod(array.shape) <= TINIER


def operations(jaxpr: "Jaxpr") -> int:
    """How many operations a program has, those of its parts included."""
    return count_of(jaxpr.eqns)


def count_of(equations: Sequence["JaxprEqn"]) -> int:
    """How many operations these are, those of their parts included."""
    inner = (part for eqn in equations for part in _parts(eqn))
    return len(equations) + sum(operations(getattr(p, "jaxpr", p)) for p in inner)


def _parts(eqn: "JaxprEqn") -> list[Any]:
    """The programs within an operation; none in a clamp, which counts as one however written."""
    called = eqn.params.get("call_jaxpr")
    if called is not None and called.jaxpr.debug_info.func_name == clamped.fun.__name__:
        return []
    return [*filter(is_program, jax.tree.leaves(eqn.params, is_leaf=is_program))]

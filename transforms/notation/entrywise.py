"""What a program does to every entry by itself, before it looks at several of them together."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from .tracing import is_literal, is_program

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr, JaxprEqn

ENTRYWISE = frozenset({
    "abs", "add", "add_any", "and", "broadcast_in_dim", "clamp", "convert_element_type", "copy",
    "cos", "custom_jvp_call", "custom_vjp_call", "div", "eq", "erf", "erf_inv", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "jit", "le", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow", "reduce_precision",
    "rem", "reshape", "round", "rsqrt", "select_n", "shift_left", "shift_right_logical", "sign",
    "sin", "sqrt", "square", "squeeze", "stop_gradient", "sub", "tanh", "xor",
})  # fmt: skip
"""Names of operations whose results need an entry of each operand alone."""


def is_entrywise(equation: "JaxprEqn") -> bool:
    """Whether an operation, and all that is done within it, takes entries one by one."""
    leaves = jax.tree.leaves(equation.params, is_leaf=is_program)
    inside: list[Any] = [getattr(part, "jaxpr", part) for part in leaves if is_program(part)]
    return equation.primitive.name in ENTRYWISE and all(
        is_entrywise(each) for program in inside for each in program.eqns
    )


def entrywise_results(program: "Jaxpr") -> list[bool]:
    """Of each result, whether it is made of entries of the inputs, one by one."""
    mixed: set[Any] = set()
    for equation in program.eqns:
        if not is_entrywise(equation) or _reads(equation.invars, mixed):
            mixed.update(equation.outvars)
    return [is_literal(x) or x not in mixed for x in program.outvars]


def needed_for(program: "Jaxpr", results: Sequence[bool]) -> list["JaxprEqn"]:
    """The operations that lead to some of its results."""
    wanted = itertools.compress(program.outvars, results)
    read = {x for x in wanted if not is_literal(x)}
    found = []
    for equation in reversed(program.eqns):
        if not read.isdisjoint(equation.outvars):
            found.append(equation)
            read.update(x for x in equation.invars if not is_literal(x))
    return found[::-1]


def _reads(atoms: Sequence[Any], known: set[Any]) -> bool:
    return any(not is_literal(x) and x in known for x in atoms)

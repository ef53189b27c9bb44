"""Which results of a computation cannot be negative."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..notation.known import is_known
from ..notation.tracing import is_literal, is_program

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

NEVER_NEGATIVE = {"abs", "exp", "exp2", "is_finite", "logistic", "square"}
"""Operations whose results are not negative, whatever they are given."""

KEEPING = {
    "add", "add_any", "broadcast_in_dim", "cbrt", "concatenate", "convert_element_type", "copy",
    "copy_p", "cumsum", "div", "dynamic_slice", "dynamic_update_slice", "gather", "log1p", "min",
    "mul", "optimization_barrier", "pad", "pow", "pvary", "real", "reduce_max", "reduce_min",
    "reduce_precision", "reduce_sum", "reshape", "reshard", "rev", "rsqrt", "scatter",
    "scatter-add", "select_n", "sharding_constraint", "slice", "split", "sqrt", "squeeze",
    "stop_gradient", "transpose",
}  # fmt: skip
"""Operations that make nothing negative of what is not."""


def never_negative(fn: Callable[[Any], Any], tree: Any, given: Any) -> Any:
    """For every leaf of `fn(tree)` whether it is seen to be free of negative entries.

    A sum of squares is, an average of gradients is not. Scalars of unknown value are taken for
    rates and decays, which are not negative.

    Args:
      fn: a function of arrays.
      tree: its argument.
      given: the same of the leaves of the argument.
    """
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(tree)
    signs = _signs(closed, jax.tree.leaves(given))
    return jax.tree.unflatten(jax.tree.structure(shape), signs)


def _signs(closed: "ClosedJaxpr", given: list[bool]) -> list[bool]:
    known: dict[Any, bool] = {}

    def sign(atom: Any) -> bool:
        if is_literal(atom):
            return bool(np.all(np.asarray(atom.val) >= 0))
        if not jnp.issubdtype(atom.aval.dtype, jnp.floating):
            return True
        return known[atom]

    jaxpr = closed.jaxpr
    for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
        known[var] = _sign_of_constant(value)
    known.update(zip(jaxpr.invars, given, strict=True))
    for equation in jaxpr.eqns:
        signs = _after(equation, [sign(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, signs, strict=True))
    return [sign(atom) for atom in jaxpr.outvars]


def _sign_of_constant(value: Any) -> bool:
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return True
    return bool(np.all(np.asarray(value) >= 0)) if is_known(value) else jnp.ndim(value) == 0


def _after(equation: Any, signs: list[bool]) -> list[bool]:
    """Which results of one operation are not negative."""
    name, count = equation.primitive.name, len(equation.outvars)
    if name == "cond":
        branches = [_signs(branch, signs[1:]) for branch in equation.params["branches"]]
        return [all(column) for column in zip(*branches, strict=True)]
    inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    if is_program(inner) and hasattr(inner, "consts") and len(inner.jaxpr.invars) == len(signs):
        return _signs(inner, signs) if name not in ("scan", "while") else [False] * count
    if name == "max":
        return [any(signs)]
    if name == "clamp":
        low, x, high = signs
        return [(low or x) and high]
    if name == "sub":
        return [equation.outvars[0].aval.ndim == 0]
    first = equation.invars[0] if equation.invars else None
    is_square = (name == "integer_pow" and equation.params["y"] % 2 == 0) or (
        name == "mul" and first is equation.invars[1]
    )
    if is_square or name in NEVER_NEGATIVE:
        return [True] * count
    return [(name in KEEPING or name == "integer_pow") and all(signs)] * count

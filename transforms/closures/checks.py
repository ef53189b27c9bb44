"""Whether the functions that `update` is given return what they should."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.values import is_missing

LossFunction: TypeAlias = Callable[..., jax.Array]
"""`params -> loss`, as `update` is given it."""


@checked()
def scalar_closure(
    value_fn: object, params: optax.Params, label: str, name: str = "value_fn"
) -> LossFunction:
    """The closure itself, if it can be called and returns a real scalar; FlowError otherwise.

    A function of signals.

    A check of an argument.
    """
    if not callable(value_fn):
        raise FlowError(f"{label}: {name} must be a function that returns a loss, not {value_fn!r}")
    out = _shape_of(value_fn, params, label, name)
    if not hasattr(out, "shape") or out.shape != ():
        got = getattr(out, "shape", type(out).__name__)
        raise FlowError(f"{label}: {name} must return a scalar loss, it returned {got}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise FlowError(f"{label}: {name} must return a real loss, it returned {out.dtype}")
    return value_fn


def _shape_of(
    fn: Callable[..., Any], params: optax.Params, label: str, name: str
) -> jax.ShapeDtypeStruct:
    try:
        return jax.eval_shape(fn, params)
    except Exception as error:
        if any(map(is_missing, jax.tree.leaves(params, is_leaf=is_missing))):
            raise FlowError(
                f"{label}: {name} failed on params of which leaves are masked: {error}. Under "
                "optax.masked and optax.partition closures see a part of the params; under "
                "gradchain.masked and gradchain.partition, with the same arguments, all of them"
            ) from error
        raise


@checked()
def array_closure(
    fn: Any, params: optax.Params, label: str, name: str, axes: int = 0
) -> Callable[..., jax.Array]:
    """The closure itself, if it can be called and returns one real array; FlowError otherwise.

    A function of signals.

    A check of an argument.
    """
    if not callable(fn):
        raise FlowError(f"{label}: {name} must be a function of the params, not {fn!r}")
    out = _shape_of(fn, params, label, name)
    dtype = getattr(out, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or len(out.shape) < axes:
        got = type(out).__name__ if dtype is None else f"{dtype}{out.shape}"
        shape = f" of at least {axes} dimensions" if axes else ""
        raise FlowError(f"{label}: {name} must return one real array{shape}, it returned {got}")
    return fn

"""Shapes of what leafwise functions return, kept from one flow to the next.

The same few functions meet the same few shapes in each method, at each `init`: to trace them anew
would take most of its time.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

import jax
import jax.numpy as jnp

from .source import MACHINERY

NUMBERS = (bool, int, float, str)
NAMED = (BuiltinFunctionType, type, jnp.ufunc, type(jnp.sqrt))
"""Callables of which there is one, for as long as the program runs."""

LIMIT = 4096
"""Entries that are kept: the longest unused goes."""

_SHAPES: OrderedDict[Hashable, Any] = OrderedDict()


def remembered(fn: Callable[..., Any], row: Sequence[object], leaves: Sequence[bool]) -> Any:
    """The shape that was found for these arguments; None for one that is not known.

    A scalar fits the leaves that it meets, and two scalars do not: `leaves` tells which are which,
    as a leaf may be a scalar by its shape.
    """
    key = _key(fn, row, leaves)
    if key not in _SHAPES:
        return None
    _SHAPES.move_to_end(key)
    return _SHAPES[key]


def remember(
    fn: Callable[..., Any], row: Sequence[object], leaves: Sequence[bool], shape: object
) -> None:
    """Keeps a shape, if it depends on the function and its arguments alone."""
    key = _key(fn, row, leaves)
    if key is not None:
        _SHAPES[key] = shape
        if len(_SHAPES) > LIMIT:
            _SHAPES.popitem(last=False)


def _key(fn: Callable[..., Any], row: Sequence[object], leaves: Sequence[bool]) -> Hashable | None:
    written, kinds = _written(fn), tuple(map(_kind, row))
    if written is None or None in kinds:
        return None
    return written, _settings(), kinds, tuple(leaves)


def _written(fn: object) -> Hashable | None:
    """What a function computes, by its code and what it closes over.

    None where that is more than functions and numbers, or where the function is the user's: what
    these read may change, or would be kept alive.
    """
    if isinstance(fn, FunctionType):
        module = str(fn.__globals__.get("__name__"))
        named = tuple((fn.__kwdefaults__ or {}).values())
        cells = tuple(cell.cell_contents for cell in fn.__closure__ or ())
        inside = tuple(_written(value) for value in (*cells, *(fn.__defaults__ or ()), *named))
        is_known = module.split(".")[0] in MACHINERY and None not in inside
        return (fn.__code__, module, inside) if is_known else None
    if fn is None or isinstance(fn, NUMBERS):
        return type(fn), fn
    return fn if isinstance(fn, NAMED) else None


def _kind(value: object) -> Hashable | None:
    if value is None or isinstance(value, NUMBERS):
        return type(value), value
    entries, structure = jax.tree.flatten(value)
    kinds = tuple(map(_kind_of_array, entries))
    return None if None in kinds else (structure, kinds)


def _kind_of_array(value: object) -> Hashable | None:
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    return (type(value), jax.typeof(value)) if isinstance(value, jax.Array) else None


def _settings() -> tuple[Hashable, ...]:
    """On what of JAX's configuration a shape, or that there is one, depends."""
    config: Any = jax.config
    return (
        config.jax_enable_x64,
        config.jax_numpy_dtype_promotion,
        config.jax_numpy_rank_promotion,
        jax.sharding.get_abstract_mesh(),
    )

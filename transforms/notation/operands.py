"""What a node computes with: signals, numbers and arrays, refused by name if they are none."""

import inspect
import numbers
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args

import jax
import numpy as np

from .errors import FlowError
from .values import Leaves

VALUES = (numbers.Number, np.ndarray, np.generic, jax.Array)

BY_PLACE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def check_operands(
    label: str,
    fn: Callable[..., Any],
    given: Sequence[object],
    allowed: tuple[type, ...],
    skip: int = 0,
    vectors: bool = True,
) -> None:
    """Raises FlowError for what is neither of the allowed types nor a number or an array.

    Args:
      label: what messages call the function.
      fn: the function.
      given: what it is given by place.
      allowed: the types.
      skip: how many arguments come before.
      vectors: whether an array may be written as a list or a tuple.
    """
    for place, value in enumerate(given):
        is_value = _is_array_like(value) if vectors else isinstance(value, VALUES)
        if not (is_value or isinstance(value, allowed)):
            called = _name(signature_of(fn), place + skip)
            raise FlowError(f"{label}: {called}={value!r} must be a signal, a number or an array")


def check_index(label: str, item: object) -> None:
    """Raises FlowError for what no leaf has entries at.

    Args:
      label: what messages call the signal.
      item: what stands in brackets.
    """
    for part in item if isinstance(item, tuple) else (item,):
        ends = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
        if part is not ... and not all(end is None or _counts(end) for end in ends):
            raise FlowError(
                f"an index of `{label}`: {part!r} must be an integer, a slice, None, ... or an "
                "array of integers or booleans"
            )


def _counts(value: object) -> bool:
    """Whether it is an integer or a boolean, or an array of such."""
    dtype = getattr(value, "dtype", np.dtype(type(value)))
    return isinstance(value, VALUES) and dtype.kind in "iub"


def _is_array_like(value: object) -> bool:
    """A number, an array, or such ones in a list or a tuple, as a vector is written by hand."""
    if isinstance(value, list | tuple):
        return all(map(_is_array_like, value))
    return isinstance(value, VALUES)


def check_trees(label: str, signature: inspect.Signature | None, given: Sequence[object]) -> None:
    """Raises FlowError for a value where the function reads the leaves of a signal.

    Args:
      label: what messages call the function.
      signature: that of the function.
      given: what it is given by place, None for what is read at each step.
    """
    for place, value in enumerate(given):
        found = _at(signature, place)
        if value is None or found is None:
            continue
        kinds = {*(get_args(found.annotation) or (found.annotation,))}
        if Leaves in kinds and kinds <= {Leaves, NoneType}:
            raise FlowError(f"{label}: {found.name}={value!r} must be a signal")


def signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """What a function can be called with; None where nothing is known of it."""
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None


def _at(signature: inspect.Signature | None, place: int) -> inspect.Parameter | None:
    """The parameter that takes the value at that place; the last one may take several."""
    taking = [p for p in (signature.parameters.values() if signature else ()) if p.kind in BY_PLACE]
    if taking and (place < len(taking) or taking[-1].kind is inspect.Parameter.VAR_POSITIONAL):
        return taking[min(place, len(taking) - 1)]
    return None


def _name(signature: inspect.Signature | None, place: int) -> str:
    found = _at(signature, place)
    return found.name if found else f"argument {place + 1}"

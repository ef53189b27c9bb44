"""Checks of arguments, all in one voice: the schedule, the name, the allowed range, what was given.

What the annotations say is checked before, by `schedule` of `registry`.
"""

import math
import operator
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..transforms.notation.checks import refusal
from .steps import Numeric


def check(
    name: str,
    value: Numeric,
    low: float = 0.0,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuses values outside the range; what is being traced has no value to check."""
    if isinstance(value, jax.core.Tracer):
        return
    left, right = "(" if open_low else "[", ")" if open_high or math.isinf(high) else "]"
    number = np.asarray(value)
    if not _is_real(number):
        raise refusal(f"{name} must be a number in {left}{low}, {high}{right}, got {value!r}")
    above = number > low if open_low else number >= low
    below = number < high if open_high or math.isinf(high) else number <= high
    if not np.all(above & below):
        raise refusal(f"{name} must be in {left}{low}, {high}{right}, got {value!r}")
    kind = jnp.finfo(jnp.result_type(float))
    if not np.all(np.abs(number) <= float(kind.max)):
        raise refusal(f"{name} must be a number of {kind.dtype}, got {value!r}")


def check_steps(name: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """The value as a Python int in [low, high]."""
    if isinstance(value, (bool, np.bool_)):
        raise refusal(f"{name} must be an int, got {value!r}")
    try:
        steps = operator.index(value)
    except TypeError:
        raise refusal(f"{name} must be an int, got {value!r}") from None
    if steps < low or (high is not None and steps > high):
        allowed = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise refusal(f"{name} must be an int {allowed}, got {steps}")
    return steps


def check_steps_or_fraction(name: str, value: Any, total_steps: int) -> int:
    """The value in steps: an int is steps already, a float a fraction of `total_steps`.

    A fraction of the steps is truncated, as the published schedules do: 0.29 of 100 is 28, since
    0.29 * 100 lies below 29.
    """
    if isinstance(value, (float, np.floating)):
        if not 0.0 <= value <= 1.0:
            raise refusal(
                f"{name} as a float is a fraction of total_steps and must be in [0.0, 1.0], "
                f"got {value!r}; give an int for steps"
            )
        return int(float(value) * total_steps)
    return check_steps(name, value, 0, total_steps)


def check_choice(name: str, value: object, choices: Collection[Any]) -> None:
    """Refuses what is not among the choices."""
    if not any(value is choice or value == choice for choice in choices):
        raise refusal(f"{name} must be one of {sorted(choices)}, got {value!r}")


def as_table(name: str, value: Any) -> np.ndarray[Any, Any]:
    """The value as numbers in a row, in NumPy's precision."""
    try:
        table = np.asarray(value)
    except (ValueError, TypeError):  # rows of several lengths
        table = np.asarray(None)
    if table.ndim != 1 or not _is_real(table):
        raise refusal(f"{name} must be a sequence of numbers, got {value!r}")
    return table


def _is_real(array: np.ndarray[Any, Any]) -> bool:
    return any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))

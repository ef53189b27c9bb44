"""Hyper-parameters: refused by name when out of range, and remembered for tables and drawings."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import numpy as np

from .build import Flow
from .errors import FlowError
from .signal import Signal

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Interval:
    """The allowed values of a number."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    integer: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not (self.integer and value % 1 != 0)

    def __str__(self) -> str:
        left, right = "(["[not self.low_open], ")]"[not self.high_open]
        kind = "an integer in " if self.integer else "in "
        return f"{kind}{left}{self.low:g}, {self.high:g}{right}"


decay_rate = Interval(0.0, 1.0, high_open=True)
fraction = Interval(0.0, 1.0)
nonnegative = Interval(0.0, math.inf)
positive = Interval(0.0, math.inf, low_open=True)
any_number = Interval(-math.inf, math.inf)
any_integer = Interval(-math.inf, math.inf, integer=True)
count_from_1 = Interval(1, math.inf, integer=True)
count_from_0 = Interval(0, math.inf, integer=True)

INTEGERS = (int, int | None)
"""Annotations of arguments that are integers."""

RANGES: dict[str, Interval] = {
    "learning_rate": nonnegative,
    "b1": decay_rate,
    "b2": decay_rate,
    "b3": decay_rate,
    "decay": decay_rate,
    "momentum": decay_rate,
    "eps": nonnegative,
    "eps_root": nonnegative,
    "weight_decay": nonnegative,
    "clip_threshold": positive,
    "max_norm": positive,
    "rank": count_from_1,
    "update_interval": count_from_1,
    "sync_period": count_from_1,
    "num_samples": count_from_1,
    "warmup_steps": count_from_0,
    "total_steps": count_from_0,
}
"""The ranges of arguments whose names mean the same everywhere."""

AXES: dict[str, Interval] = {"channel_axis": any_integer, "fan_in_axis": any_integer}
"""Axes, which count from either end."""

SIZES = frozenset(
    {
        "block_size",
        "capacity",
        "channel_axis",
        "fan_in_axis",
        "history",
        "max_dim",
        "max_halvings",
        "max_linesearch_steps",
        "min_dim_size_to_factor",
        "num_grads",
        "num_groups",
        "num_samples",
        "rank",
        "solver_iterations",
        "target_ndim",
        "warmup_samples",
    }
)
"""Integers that set shapes or the length of loops: they are never arrays."""


def transformation(**ranges: Interval | None) -> Callable[[Factory], Factory]:
    """Decorates a factory of transformations.

    The result knows the factory's name and arguments, and an argument out of range is refused:
    by the range that is common to all arguments of its name, or by the one given here (None: not
    checked). Arguments annotated `int` must be integers, those annotated `bool` truth values.
    Scalar arrays, which may be traced, schedules and None pass.

    Args:
      **ranges: argument name -> `Interval`, in place of the common one.
    """

    def decorate(factory: Factory) -> Factory:
        signature = inspect.signature(factory)
        common = RANGES | AXES
        allowed = {
            name: _whole(ranges.get(name, common.get(name)), parameter.annotation)
            for name, parameter in signature.parameters.items()
        }
        switches = [n for n, p in signature.parameters.items() if p.annotation is bool]

        @functools.wraps(factory)
        def checked(*args: Any, **kwargs: Any) -> Any:
            bound = _bind(signature, factory.__name__, args, kwargs)
            check(factory.__name__, bound, allowed)
            for name in switches:
                _check_switch(factory.__name__, name, bound[name])
            made = factory(*args, **kwargs)
            return made.relabelled(factory.__name__, bound) if isinstance(made, Flow) else made

        return checked  # type: ignore[return-value]

    return decorate


def _whole(interval: Interval | None, annotation: Any) -> Interval | None:
    """The interval, of integers where the argument is one."""
    return replace(interval or any_number, integer=True) if annotation in INTEGERS else interval


def _check_switch(label: str, name: str, value: Any) -> None:
    """Raises FlowError for what is no truth value; "no" would count as true."""
    if not isinstance(value, bool | np.bool_ | jax.Array | Signal):
        raise FlowError(f"{label}: {name}={value!r} must be True or False")


def _bind(
    signature: inspect.Signature, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{label}: {error}; its arguments are {signature}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def check(label: str, values: Mapping[str, Any], allowed: Mapping[str, Interval | None]) -> None:
    """Raises FlowError for the first value outside its interval, naming argument and range."""
    for name, value in values.items():
        if name in SIZES and isinstance(value, jax.Array):
            raise FlowError(
                f"{label}: {name} sets a size and must be a Python int, not an array; "
                f"inject with gradchain.inject_hyperparams, or name it in static_args"
            )
        interval = allowed.get(name)
        if interval is None or value is None or isinstance(value, Signal) or callable(value):
            continue
        if getattr(value, "ndim", 0) > 0:
            raise FlowError(f"{label}: {name} of shape {value.shape} must be a number {interval}")
        if hasattr(value, "dtype") and not isinstance(value, np.generic):
            continue
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FlowError(f"{label}: {name}={value!r} must be a number {interval}")
        if math.isnan(value) or value not in interval:
            raise FlowError(f"{label}: {name}={value!r} is out of range; it must be {interval}")


def check_choice(label: str, name: str, value: Any, choices: Any) -> None:
    """Raises FlowError unless `value` is one of the choices."""
    if value not in tuple(choices):
        allowed = ", ".join(map(repr, choices))
        raise FlowError(f"{label}: {name}={value!r} is not one of {allowed}")

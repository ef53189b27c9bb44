"""Ranges of arguments that have no type yet, by their names. To go when all have one."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .arguments import Argument
from .domains import Interval
from .errors import FlowError

decay_rate = Interval(0.0, 1.0, high_open=True)
fraction = Interval(0.0, 1.0)
nonnegative = Interval(0.0, math.inf)
positive = Interval(0.0, math.inf, low_open=True)
any_number = Interval(-math.inf, math.inf)
any_integer = Interval(-math.inf, math.inf, integer=True)
count_from_1 = Interval(1, math.inf, integer=True)
count_from_0 = Interval(0, math.inf, integer=True)

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


def by_name(argument: Argument, ranges: Mapping[str, Interval | None]) -> Argument:
    """The argument with the range of its name."""
    if (argument.domains or argument.choices) and argument.name not in ranges:
        return argument
    interval = ranges.get(argument.name, RANGES.get(argument.name))
    if interval and any(getattr(domain, "integer", False) for domain in argument.domains):
        interval = replace(interval, integer=True)
    return Argument(argument.name, (interval,) if interval else (), (), True, True)


def check_choice(label: str, name: str, value: Any, choices: Any) -> None:
    """Raises FlowError unless `value` is one of the choices.

    A check of an argument.
    """
    if value not in tuple(choices):
        allowed = ", ".join(map(repr, choices))
        raise FlowError(f"{label}: {name}={value!r} is not one of {allowed}")

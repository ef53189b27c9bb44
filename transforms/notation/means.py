"""Weighted means among the signals of a step, recognised by how they are written."""

import inspect
import operator
from typing import Any, NamedTuple

from .roots import squared
from .signal import Delay, Function, Signal, quotient_of_signals, sum_of_signals

ROUNDING = 1e-6
"""By how much the shares of a mean may add up to more than one."""


def is_made_by(node: Any, fn: Any) -> bool:
    """Whether a signal is this function of others."""
    return isinstance(node, Function) and inspect.unwrap(node.fn) is fn


def is_number(value: Any) -> bool:
    """Whether it is a number that is known while the flow is built."""
    return isinstance(value, int | float)


def is_a_sum_of_shares(node: Any) -> bool:
    """Whether an average of finite numbers, divided by it, is finite: what corrects its start."""
    return getattr(getattr(node, "fn", None), "is_a_sum_of_shares", False)


class Average(NamedTuple):
    """A running average, or what is averaged itself.

    Attributes:
      decay: the share that the past has in it.
      value: what is averaged.
    """

    decay: float
    value: Any


def is_normalised(a: Any, b: Any) -> bool:
    """Whether a is an average and b the root of one of the squares of the same values.

    By the inequality of Cauchy and Schwarz their ratio is bounded where the squares are remembered
    for at least as long, decay(a)^2 < decay(b), whatever the values are.
    """
    if is_made_by(b, quotient_of_signals) and _corrects_a_root(b.args[1]):
        b = b.args[0]
    root = _without_added(b)
    if not _is_a_root(root):
        return False
    first, second = average(a), average(_without_added(root.args[0]))
    squares = second.value
    is_of_the_same = is_made_by(squares, squared) and squares.args[0] is first.value
    return is_of_the_same and first.decay**2 < second.decay


def _is_a_root(node: Any) -> bool:
    return getattr(getattr(node, "fn", None), "is_a_root", False)


def _corrects_a_root(node: Any) -> bool:
    return _is_a_root(node) and is_a_sum_of_shares(node.args[0])


def average(node: Any) -> Average:
    """A signal as a running average, corrected or not; as one of no memory where it is none."""
    if is_made_by(node, quotient_of_signals) and is_a_sum_of_shares(node.args[1]):
        node = node.args[0]
    parts = shares_of(node)
    for (share, past), (_, value) in zip(parts, reversed(parts), strict=True):
        if _is_from_zero(past) and past.written is node and is_number(share):
            return Average(share, value)
    return Average(0.0, node)


def _is_from_zero(node: Any) -> bool:
    """Whether it is a delay in which nothing was at first that is no part of the average."""
    return isinstance(node, Delay) and node.start is None and not node.of_params


def _without_added(node: Any) -> Any:
    """What a constant that is not below 0 was added to."""
    is_sum = is_made_by(node, sum_of_signals)
    return node.args[0] if is_sum and is_number(node.args[1]) and node.args[1] >= 0 else node


def shares_of(node: Any) -> list[tuple[Any, Any]]:
    """The shares and the values of a weighted mean of two, `b m + (1 - b) g`; else none."""
    return shares(*node.args) if is_made_by(node, sum_of_signals) else []


def shares(x: Any, y: Any) -> list[tuple[Any, Any]]:
    """The same of the two terms."""
    terms = [_term(x), _term(y)]
    (a, _), (b, _) = terms
    if is_number(a) and is_number(b):
        return terms if abs(a) + abs(b) <= 1 + ROUNDING else []
    return terms if _is_what_is_left(a, b) or _is_what_is_left(b, a) else []


def _term(node: Any) -> tuple[Any, Any]:
    if not is_made_by(node, operator.mul):
        return 1.0, node
    a, b = node.args
    return (b, a) if is_number(b) else (a, b)


def _is_what_is_left(rest: Any, share: Any) -> bool:
    if not isinstance(share, Signal) or not is_made_by(rest, operator.sub):
        return False
    whole, taken = rest.args
    return is_number(whole) and whole == 1 and taken is share

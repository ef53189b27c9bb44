"""What cannot become infinite at a step whose inputs are finite, as the graph shows it.

An infinity that meets an opposite one, another below it or a 0 is NaN from then on. Guards against
that cost some operations for every leaf, so they are left out where no two can meet: an average of
gradients is finite, and one of their squares, once infinite, stays so.
"""

import functools
import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp

from .functions import signs
from .means import is_a_sum_of_shares, is_normalised, is_number, shares, shares_of
from .roots import squared
from .signal import (
    CellNode,
    Clock,
    Delay,
    Function,
    Input,
    Signal,
    quotient_of_signals,
    sum_of_signals,
)

MODERATE = 1e6
"""The largest magnitude of a constant that counts as moderate."""


class Bound(NamedTuple):
    """What is known of a signal.

    Attributes:
      finite: it is never infinite.
      positive: it is never below 0.
      timed: it follows from the number of the step and the hyper-parameters alone.
      moderate: it is far from the largest numbers, so that less of it changes nothing of those.
    """

    finite: bool = False
    positive: bool = False
    timed: bool = False
    moderate: bool = False


class Bounds(NamedTuple):
    """What is known of the signals of a graph.

    Attributes:
      finite: indices of the signals that are never infinite.
      harmless: indices of the delays that may be read as they are.
      moderate: indices of the signals that are far from the largest numbers.
      steps: whether the updates are never infinite. Of others the params may become so.
    """

    finite: frozenset[int]
    harmless: frozenset[int]
    moderate: frozenset[int]
    steps: bool

    def is_finite(self, value: Any) -> bool:
        """Whether a signal or constant is never infinite."""
        return value.index in self.finite if isinstance(value, Signal) else _constant(value).finite

    def function_of(self, node: Function) -> Callable[..., Any]:
        """What computes the node: without its guard where there is nothing to guard against."""
        calm: Callable[..., Any] | None = getattr(node.fn, "where_moderate", None)
        if calm is not None and all(x.index in self.moderate for x in _signals(node)):
            return calm
        bare: Callable[..., Any] | None = getattr(node.fn, "where_finite", None)
        return node.fn if bare is None or not any(map(self.is_finite, node.args)) else bare


def _signals(node: Function) -> list[Signal]:
    return [arg for arg in node.args if isinstance(arg, Signal)]


def bounds_of(nodes: Iterable[Signal], finite_inputs: Collection[str], output: Signal) -> Bounds:
    """What is known of these signals, each after what it is computed from.

    Delays are thought the best of at first; what is written to them corrects that, until all agree.

    Args:
      nodes: the signals.
      finite_inputs: names of the inputs that are never infinite.
      output: the updates.
    """
    nodes = tuple(nodes)
    delays = [node for node in nodes if isinstance(node, Delay)]
    inputs = {n.index: Bound(n.name in finite_inputs) for n in nodes if isinstance(n, Input)}
    held, known = {node.index: _start(node) for node in delays}, dict[int, Bound]()
    while True:
        known = inputs | held
        for node in nodes:
            known[node.index] = _of(node, known)
        met = {d.index: _meet(held[d.index], _of(d.written, known)) for d in delays}
        if met == held:
            break
        held = met
    finite = frozenset(i for i, bound in known.items() if bound.finite)
    staying = (node.index for node in delays if _stays_infinite(node, known[node.index]))
    moderate = frozenset(i for i, bound in known.items() if bound.moderate)
    return Bounds(finite, finite.union(staying), moderate, output.index in finite)


def _start(node: Delay) -> Bound:
    start = node.start if isinstance(node.like, Signal) else node.like
    if start is None:
        return Bound(True, not node.of_params)
    return Bound(True) if callable(start) else _constant(start)._replace(timed=False)


def _meet(a: Bound, b: Bound) -> Bound:
    return Bound(*(x and y for x, y in zip(a, b, strict=True)))


def _stays_infinite(node: Delay, bound: Bound) -> bool:
    """Whether it is an average of what is never below 0, and never multiplied by 0 there."""
    parts = shares_of(node.written) if bound.positive else []
    return any(value is node and is_number(share) and share > 0 for share, value in parts)


def _of(node: Any, known: dict[int, Bound]) -> Bound:
    if not isinstance(node, Signal):
        return _constant(node)
    if node.index in known:
        return known[node.index]
    if isinstance(node, Clock):
        return Bound(True, True, True)
    if isinstance(node, CellNode):
        return Bound() if node.cell.bound is None else node.cell.bound()
    if not isinstance(node, Function):
        return Bound()

    def look(value: Any) -> Bound:
        return _of(value, known)

    own: Callable[..., Bound] | None = getattr(node.fn, "bound", None)
    if own is not None:
        return own(look, *node.args)
    if node.mode != "leaf":
        return Bound()
    if node.args and all(look(arg).timed for arg in node.args):
        return Bound(True, is_a_sum_of_shares(node), True, True)
    rule = _RULES.get(inspect.unwrap(node.fn))
    return rule(look, *node.args) if rule else Bound()


def _constant(value: Any) -> Bound:
    if is_number(value):
        return Bound(math.isfinite(value), value >= 0, True, abs(value) <= MODERATE)
    return Bound(True, False, True, True)  # a hyper-parameter that is an array


Look = Callable[[Any], Bound]


def of_the_first(look: Look, x: Any, *_: Any) -> Bound:
    """The rule of a function that passes some leaves of its first argument on."""
    return look(x)


def of_all(look: Look, *args: Any) -> Bound:
    """The rule of a function each of whose leaves is one of those of its arguments."""
    return functools.reduce(_meet, map(look, args))


def always(bound: Bound) -> Callable[..., Bound]:
    """The rule of a function of which that is known whatever it is given."""
    return lambda look, *args: bound


def _all(look: Look, *args: Any) -> Bound:
    return functools.reduce(_meet, map(look, args))._replace(timed=False)


def _chosen(look: Look, _: object, *choices: Any) -> Bound:
    return _all(look, *choices)


def _magnitude(look: Look, x: Any) -> Bound:
    return look(x)._replace(positive=True)


def _negative(look: Look, x: Any) -> Bound:
    return look(x)._replace(positive=False)


def _square(look: Look, x: Any) -> Bound:
    return Bound(look(x).moderate, True, False, look(x).moderate)


def _sum(look: Look, a: Any, b: Any) -> Bound:
    parts, both = shares(a, b), _all(look, a, b)
    averages = bool(parts) and all(look(value).finite for _, value in parts)
    changes_nothing = both.finite and (look(a).moderate or look(b).moderate)
    return Bound(averages or changes_nothing, both.positive, False, both.moderate)


def _difference(look: Look, a: Any, b: Any) -> Bound:
    return _sum(look, a, b)._replace(positive=False)


def _product(look: Look, a: Any, b: Any) -> Bound:
    factor, value = (b, a) if is_number(b) else (a, b)
    x, both = look(value), _all(look, a, b)
    if is_number(factor):
        return Bound(
            x.finite and abs(factor) <= 1, both.positive and factor > 0, False, both.moderate
        )
    return Bound(both.moderate, a is b, False, both.moderate)


def _quotient(look: Look, a: Any, b: Any) -> Bound:
    is_corrected = bool(shares_of(a)) and is_a_sum_of_shares(b)
    x, moderate = look(a), is_normalised(a, b)
    finite = moderate or (x.finite and is_corrected)
    return Bound(finite, x.positive and look(b).positive, False, moderate)


_RULES: dict[Any, Callable[..., Bound]] = {
    sum_of_signals: _sum,
    operator.sub: _difference,
    operator.mul: _product,
    quotient_of_signals: _quotient,
    operator.neg: _negative,
    operator.abs: _magnitude,
    squared: _square,
    signs: lambda look, x: Bound(finite=True, moderate=True),
    jnp.maximum: _all,
    jnp.minimum: _all,
    jnp.where: _chosen,
}

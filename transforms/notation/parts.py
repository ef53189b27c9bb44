"""Parting a tree by its leaves, and joining the parts again."""

from collections.abc import Hashable, Sequence
from functools import partial

from .bounds import of_all, of_the_first
from .context import Context
from .errors import FlowError
from .functions import lift_tree
from .refusing import refusing
from .selection import Selector, labels_of, selected
from .signal import Signal
from .values import Leaves, either, is_missing


@refusing
def split(signal: Signal, select: Selector) -> tuple[Signal, Signal]:
    """Parts a tree in the leaves that are selected and the others.

    A function of signals.

    Each part can be sent its own way; states are kept for the leaves of the part alone.
    `merge(a, b)` joins the parts again.

    Args:
      signal: a tree signal.
      select: predicate of a leaf (`lambda leaf: leaf.ndim == 2`), a tree of booleans, or a
        function from the params to such a tree.

    Returns:
      The signal at the selected leaves, and at all others.
    """

    def part(context: Context, tree: Leaves | None, wanted: bool) -> Leaves | None:
        if tree is None:  # params that were not given
            return None
        return _where(selected(select, tree, context), wanted, tree)

    part.passes_on, part.bound = True, of_the_first  # type: ignore[attr-defined]

    def side(name: str, wanted: bool) -> Signal:
        return lift_tree(part, name, context=True, out=part)(signal, wanted)

    return side("selected", True), side("others", False)


def split_by_label(
    signal: Signal, param_labels: object, labels: Sequence[Hashable]
) -> tuple[Signal, ...]:
    """Parts a tree by the labels of its leaves, one part for each label.

    A function of signals.

    Args:
      signal: a tree signal.
      param_labels: a tree of labels or a prefix of it, or a function from the params to one.
      labels: all of them.
    """

    def part(context: Context, tree: Leaves | None, label: Hashable) -> Leaves | None:
        if tree is None:
            return None
        given = labels_of(param_labels, tree, context)
        for index, of_leaf in enumerate(given):
            if of_leaf not in labels and not is_missing(of_leaf):
                raise FlowError(
                    f"{context.label}: param_labels has the label {of_leaf!r} at leaf "
                    f"{tree.path(index)}; there are {', '.join(map(repr, labels))}"
                )
        return _where(given, label, tree)

    def side(label: Hashable) -> Signal:
        bound = partial(part, label=label)
        bound.passes_on, bound.bound = True, of_the_first  # type: ignore[attr-defined]
        return lift_tree(bound, str(label), context=True, out=bound)(signal)

    return tuple(map(side, labels))


def _where(given: Sequence[object], wanted: object, tree: Leaves) -> Leaves:
    return tree.only(lambda i: given[i] == wanted)


@refusing
def merge(*parts: Signal) -> Signal:
    """Joins the parts of a split: at each leaf the value of the part that has one.

    A function of signals.
    """
    return lift_tree(_joined, "merge", out=lambda _, *trees: either(*trees), each=True)(*parts)


def _joined(*trees: Leaves) -> Leaves:
    return either(*trees)


_joined.bound = of_all  # type: ignore[attr-defined]

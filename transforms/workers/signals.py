"""What workers hold and what they exchange, as signals."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.context import Context
from ..notation.crowds import of_stacks, reads_stacks
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Scalar
from ..notation.packing import choose_leaves
from ..notation.sharding import resharded
from ..notation.signal import Signal
from ..notation.values import Leaves
from . import axis


@checked()
def exchanged(
    fn: Callable[..., Any],
    name: str,
    axis_name: str | None,
    sent: Callable[..., float],
    workers: int = 1,
) -> Callable[..., Signal]:
    """Makes a function of trees that speaks along an axis, one of signals.

    Part of the notation.

    Args:
      fn: `(context, *values) -> value`; the arrays of the first one belong to the worker.
      name: what the node is called.
      axis_name: the axis; in `update` it must be there.
      sent: `(context, *abstract values) -> bytes` that a worker sends.
      workers: how many there are, where that matters before the axis is known.
    """

    def run(context: Context, first: Leaves, *others: Any) -> Leaves:
        axis.require_axis(context.label, axis_name)
        return fn(context, axis.own(first, axis_name), *others)

    if reads_stacks(fn):
        run = of_stacks(run)

    def nothing(context: Context, *values: Any) -> float:
        return 0.0

    return lift_tree(
        run,
        name,
        context=True,
        out=axis.along(axis_name, run, workers),
        sent=nothing if axis_name is None else sent,
    )


@checked()
def of_worker(signal: Signal, axis_name: str | None) -> Signal:
    """A signal that differs from worker to worker; what is stored of it does so from `init` on.

    A function of signals.

    Args:
      signal: a tree signal, such as the gradient.
      axis_name: the axis along which the workers lie; None: there is one.
    """
    if axis_name is None:
        return signal

    def owned(tree: Leaves) -> Leaves:
        return axis.own(tree, axis_name)

    return lift_tree(owned, "of_worker")(signal)


@checked()
def mean_over(signal: Signal, axis_name: str | None, *, share: float = 1.0) -> Signal:
    """The mean over the workers, the same on all of them.

    A function of signals.

    Args:
      signal: a tree signal.
      axis_name: the axis along which the workers lie; None: there is one.
      share: of the steps in which it is sent, where the node runs at some of them only.
    """

    def averaged(context: Context, tree: Leaves) -> Leaves:
        return axis.mean(tree, axis_name)

    def sent(context: Context, tree: Any) -> float:
        return float(axis.size_of(tree) * share)

    return exchanged(averaged, "mean_over", axis_name, sent)(signal)


@checked()
def gathered_over(signal: Signal, axis_name: str | None) -> Signal:
    """What all workers have, stacked on a new leading axis; the same on all of them.

    A function of signals.

    Args:
      signal: a tree signal.
      axis_name: the axis along which the workers lie; None: there is one.
    """

    def gathered(context: Context, tree: Leaves) -> Leaves:
        return axis.gather(tree, axis_name)

    def sent(context: Context, tree: Any) -> float:
        return float(axis.size_of(tree))

    return exchanged(gathered, "gathered_over", axis_name, sent)(signal)


@checked()
def mean_when(
    condition: Signal, signal: Signal, axis_name: str | None, *, share: Scalar = 1.0
) -> Signal:
    """The mean over the workers where a condition holds; elsewhere nothing is sent, or to be read.

    A function of signals.

    Args:
      condition: a boolean scalar signal, the same on all workers.
      signal: a tree signal.
      axis_name: the axis along which the workers lie; None: there is one.
      share: of the steps in which the condition holds, for the count of bytes.
    """

    def averaged(context: Context, tree: Leaves, due: jax.Array) -> Leaves:
        if axis_name is None:
            return tree
        return choose_leaves(due, lambda: axis.mean(tree, axis_name), lambda: tree.map(_nothing))

    def sent(context: Context, tree: Any, due: Any) -> float:
        return float(axis.size_of(tree) * (share if isinstance(share, int | float) else 1.0))

    return exchanged(averaged, "mean_when", axis_name, sent)(signal, condition)


def _nothing(leaf: jax.Array) -> jax.Array:
    return resharded(jnp.zeros(leaf.shape, leaf.dtype), leaf)


@checked()
def total_over(signal: Signal, axis_name: str | None) -> Signal:
    """The sum over the workers, the same on all of them.

    A function of signals.

    Args:
      signal: a tree signal.
      axis_name: the axis along which the workers lie; None: there is one.
    """

    def summed(context: Context, tree: Leaves) -> Leaves:
        return axis.total(tree, axis_name)

    def sent(context: Context, tree: Any) -> float:
        return float(axis.size_of(tree))

    return exchanged(summed, "total_over", axis_name, sent)(signal)

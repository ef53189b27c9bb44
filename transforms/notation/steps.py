"""What a step may call, beside the functions of signals: inputs, clock, delays, taps."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.typing import ArrayLike, DTypeLike

from .cell import Cell
from .errors import FlowError
from .hyperparameters import Scalar
from .refusing import refusing
from .scope import Builder, current_builder
from .signal import CellNode, Delay, Input, Signal, at_this_step, clock

Start: TypeAlias = ArrayLike | Callable[..., Any]
"""What a state starts at: a number for every entry, or a function of the leaves; see `delay`."""


def input_signal(builder: Builder, name: str, optional: bool = False) -> Input:
    """The input of that name, one node however often it is asked for."""
    if name not in builder.inputs:
        builder.inputs[name] = Input(name, optional)
    found: Input = builder.inputs[name]
    found.optional &= optional
    return found


@refusing
def step_count(*, outermost: bool = False) -> Signal:
    """The number of the step as an int32 scalar signal: 1 at the first update.

    A function of signals.

    In a flow that rests at some steps, as within `every` or `when`, it counts the runs of that
    flow, as do schedules there; `step_count(outermost=True)` counts those of the training loop.

    Args:
      outermost: count the updates of the outermost flow.
    """
    return clock(outermost)


@refusing
def scheduled(value: Signal | ArrayLike | Callable[..., Any], ahead: int = 0) -> Scalar:
    """A hyper-parameter that may be a schedule: the number itself, or its value at this step.

    Part of the notation.

    Schedules are functions of the number of updates made before, so 0 at the first update. Where a
    schedule meets a signal this is done by itself: `b1 * m` needs it no more than `ema(b1)`, but
    `1 - scheduled(b1)` does.

    Args:
      value: number, array, signal, or function of the count.
      ahead: how many steps later than this one its value is taken.
    """
    found: Scalar = at_this_step(value, ahead)
    return found


@refusing
def tap(name: str, signal: Signal) -> Signal:
    """Makes a signal readable from outside under a name; see `observe`.

    Part of the notation.

    Nothing is computed or stored for a tap that nobody observes.

    Args:
      name: an identifier.
      signal: what to read.

    Returns:
      The signal itself.
    """
    builder = current_builder(name)
    builder.tap(name, signal)
    return signal


@refusing
def delay(
    like: Signal | ArrayLike | Callable[[], jax.Array],
    start: Start | None = None,
    *,
    name: str | None = None,
    dtype: DTypeLike | None = None,
    evaluation: tuple[float | jax.Array, float | jax.Array] | None = None,
) -> Delay:
    """A unit delay: the value that was written to it at the previous step.

    Part of the notation.

    Close it with `<<`:

        past = delay(g)
        m = decay * past + (1 - decay) * g
        past << m

    Args:
      like: a signal whose shapes it has, or a number for a scalar that starts there, or a function
        without arguments that makes it in `init`. A delay of the `params` input starts at the
        params; of any other signal, at zeros.
      start: number at which every entry starts instead, or a function that turns a leaf into
        what it starts at: a param where the signal is shaped like the params, else zeros. With
        the attribute `of_tree` it is called once, with all `Leaves`.
      name: name of the state; default after the transformation around it.
      dtype: storage dtype; default the signal's, at least float32.
      evaluation: `(weight, params_weight)` if the method's evaluation weights are
        `weight * stored + params_weight * params`; see `eval_params`.
    """
    if isinstance(start, Signal):
        raise FlowError(f"delay: start={start!r} has no value before the first step")
    return Delay(like, start, dtype, name or "delay", name is not None, evaluation)


@refusing
def stateful(cell: Cell, *args: Signal | Scalar, name: str | None = None) -> Signal:
    """A node with a hand-written state; for primitives that no composition expresses.

    Part of the notation.

    Args:
      cell: its `init` and `update`.
      *args: the signals and numbers that it reads.
      name: name of its state; default the cell's.
    """
    return CellNode(cell, args, name or cell.name, name is not None)

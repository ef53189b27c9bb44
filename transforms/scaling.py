"""The last steps of a chain: learning rate and weight decay."""

from typing import Any

import optax

from .notation.build import Flow, flow, scheduled
from .notation.checks import transformation
from .notation.functions import Selector, merge, split
from .notation.signal import Signal


@transformation()
def scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule, *, flip_sign: bool = True
) -> Flow:
    """Multiplies by the learning rate, with the sign that descends.

    As `optax.scale_by_learning_rate`, but a schedule reads the flow's own step count instead of
    keeping a second one.

    Args:
      learning_rate: number or schedule; a schedule is 0-based: its first argument is 0.
      flip_sign: multiply by minus the rate.
    """

    def step(u: Signal) -> Signal:
        rate = scheduled(learning_rate)
        return -rate * u if flip_sign else rate * u

    return flow(step)


@transformation()
def add_decayed_weights(weight_decay: Any = 0.0, mask: Selector = None) -> Flow:
    """Adds weight_decay times the params to the update.

    A decay of exactly 0 is left out, so that params are not needed.

    Args:
      weight_decay: number, schedule or scalar signal.
      mask: the leaves that decay: a tree of booleans, or a function of the params; default all.
    """
    if isinstance(weight_decay, int | float) and weight_decay == 0:
        return flow(lambda u: u)

    def step(u: Signal, params: Signal) -> Signal:
        decay = scheduled(weight_decay)
        if mask is None:
            return u + decay * params
        decayed, kept = split(u, mask)
        return merge(decayed + decay * params, kept)

    return flow(step)

"""The last steps of a chain: learning rate and weight decay."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.errors import FlowError
from ..notation.functions import lift, merge, split
from ..notation.hyperparameters import Mask, NonNegative, Number, Positive, is_neutral
from ..notation.signal import Signal
from ..notation.steps import scheduled, step_count


@transformation()
def scale_by_learning_rate(learning_rate: NonNegative, *, flip_sign: bool = True) -> Flow:
    """Multiplies by the learning rate, with the sign that descends.

    A transformation to send signals through.

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
def add_decayed_weights(weight_decay: NonNegative = 0.0, mask: Mask | None = None) -> Flow:
    """Adds weight_decay times the params to the update.

    A transformation to send signals through.

    A decay of exactly 0 is left out, so that params are not needed.

    Args:
      weight_decay: number, schedule or scalar signal.
      mask: the leaves that decay: a tree of booleans, or a function of the params; default all.
    """
    if is_neutral(weight_decay):
        return flow(lambda u: u)

    def step(u: Signal, params: Signal) -> Signal:
        decay = scheduled(weight_decay)
        if mask is None:
            return u + decay * params
        decayed, kept = split(u, mask)
        return merge(decayed + decay * params, kept)

    return flow(step)


def starting_at(value: Any, count: int) -> Any:
    """A hyper-parameter that is 0 before the step of that 0-based index: a number or a schedule.

    A function of signals.

    Args:
      value: number or schedule, of the steps from the first on.
      count: how many steps it rests.
    """
    if isinstance(count, int) and count == 0:
        return value
    if is_neutral(value):
        return value
    at = value if callable(value) else lambda step: value
    return lambda step: jnp.where(step >= count, at(step), 0.0)


DecayForm = Literal["decoupled", "fixed", "relative", "stepped", "stepped_fixed", "proximal"]


@transformation()
def decay_weights(
    weight_decay: NonNegative,
    learning_rate: Number = 1.0,
    form: DecayForm = "decoupled",
    mask: Mask | None = None,
    base_rate: Positive | None = None,
) -> Flow:
    """Weight decay in its named forms, applied to a finished update (rate and sign included).

    A transformation to send signals through.

    With u the incoming update, x the params, r the rate, w the decay:

        decoupled       u - r w x                  (AdamW as in torch and Optax)
        fixed           u - w x                    (whatever the rate)
        relative        u - (r_t / r_1) w x        (AdamW as in its paper)
        stepped         u - r w (x + u)            (on the params after the step)
        stepped_fixed   u - w (x + u)
        proximal        (x + u) / (1 + r w) - x

    A decay of exactly 0 is left out, so that params are not needed.

    Args:
      weight_decay: w; number, schedule or scalar signal.
      learning_rate: r; number, schedule or scalar signal.
      form: one of the above.
      mask: the leaves that decay: a tree of booleans, or a function of the params; default all.
      base_rate: r_1 of the relative form; default the schedule's first value.

    Raises:
      FlowError: for the relative form of a schedule that starts at 0 without a `base_rate`.
    """
    if is_neutral(weight_decay):
        return flow(lambda u: u)

    def step(u: Signal, params: Signal) -> Signal:
        w, r = scheduled(weight_decay), scheduled(learning_rate)
        if form == "relative":
            r = relative_rate(learning_rate, base_rate, "decay_weights")
        if mask is None:
            return _decayed(u, params, w, r, form)
        chosen, kept = split(u, mask)
        return merge(_decayed(chosen, params, w, r, form), kept)

    return flow(step)


def relative_rate(learning_rate: Number, base_rate: Positive | None, label: str) -> Any:
    """The rate of this step as a multiple of its base; 1 for a rate that is no schedule.

    A function of signals.

    Args:
      learning_rate: number or schedule.
      base_rate: what it is compared with; default the schedule's first value.
      label: the method, for messages.

    Raises:
      FlowError: if the first value is 0 and no base is given.
    """
    if base_rate is not None:
        return scheduled(learning_rate) / scheduled(base_rate)
    if not callable(learning_rate):
        return 1.0
    base = learning_rate(0)
    if not isinstance(base, jax.core.Tracer) and base == 0:
        raise FlowError(
            f"{label}: the learning-rate schedule starts at 0, so nothing can be relative to its "
            "first value; pass the base rate explicitly"
        )
    # At run time, not now: in the precision of the run.
    return lift(lambda t: learning_rate(t - 1) / learning_rate(0), "relative_rate")(step_count())


def _decayed(u: Signal, x: Signal, w: Any, r: Any, form: str) -> Signal:
    if form == "proximal":
        # (x + u) / (1 + r w) - x without its cancellation
        return (u - r * w * x) / (1 + r * w)
    rate = 1.0 if form.endswith("fixed") else r
    at = x + u if form.startswith("stepped") else x
    return u - rate * w * at

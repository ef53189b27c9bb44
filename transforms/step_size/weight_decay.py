"""Weight decay in its named forms."""

from typing import Literal

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import signs_agree, where
from ..notation.hyperparameters import (
    Length,
    Mask,
    NonNegative,
    Positive,
    Scalar,
    is_neutral,
)
from ..notation.parts import merge, split
from ..notation.signal import Signal
from ..notation.steps import scheduled, step_count
from .relative import relative_rate

DecayForm = Literal[
    "added",
    "decoupled",
    "independent",
    "relative",
    "stepped",
    "stepped_independent",
    "proximal",
    "cautious",
]


@transformation()
def decay_weights(
    weight_decay: NonNegative | None,
    form: DecayForm = "added",
    *,
    learning_rate: NonNegative = 1.0,
    mask: Mask | None = None,
    base_rate: Positive | None = None,
    at: Signal | None = None,
    start: Length = 0,
) -> Flow:
    """Weight decay in one of its named forms.

    A transformation to send signals through.

    With u the incoming update, x the params, r the rate, w the decay:

        added                 u + w x

    goes before the rate: in front of a method it is L2 regularisation, behind the direction the
    decoupled decay of AdamW as in torch and Optax. The others are for a finished update, rate and
    sign included:

        decoupled             u - r w x
        independent           u - w x                    (whatever the rate)
        relative              u - (r_t / r_1) w x        (AdamW as in its paper)
        stepped               u - r w (x + u)            (on the params after the step)
        stepped_independent   u - w (x + u)
        proximal              (x + u) / (1 + r w) - x
        cautious              u - r w x where that does not work against u, else u

    A w that is a signal with the shapes of the params, or with a number per leaf, makes any of them
    preconditioned, gated or layer-wise. A decay of exactly 0, or None, is left out, so that params
    are not needed.

    Args:
      weight_decay: w; number, schedule, or a signal that broadcasts against the params.
      form: one of the above.
      learning_rate: r; number or schedule.
      mask: the leaves that decay: a tree of booleans, or a function of the params; default all.
      base_rate: r_1 of the relative form; default the rate of the first step.
      at: what decays, in place of the params.
      start: how many steps there is no decay at first.

    Raises:
      FlowError: for the relative form of a rate that starts at 0 without a `base_rate`.
    """
    if weight_decay is None or is_neutral(weight_decay):
        return flow(lambda u: u)

    def decayed(u: Signal, params: Signal) -> Signal:
        w, r = scheduled(weight_decay), scheduled(learning_rate)
        if not is_neutral(start):
            w = w * (step_count() > start)
        if form == "relative":
            r = relative_rate(learning_rate, base_rate, "decay_weights")
        if mask is None:
            return _decayed(u, params, w, r, form)
        chosen, kept = split(u, mask)
        return merge(_decayed(chosen, params, w, r, form), kept)

    if at is not None:
        return flow(lambda u: decayed(u, at))
    return flow(decayed)


def _decayed(u: Signal, x: Signal, w: Scalar, r: Scalar, form: DecayForm) -> Signal:
    if form == "added":
        return u + w * x
    if form == "proximal":
        # (x + u) / (1 + r w) - x without its cancellation
        return (u - r * w * x) / (1 + r * w)
    if form == "cautious":
        return u - r * w * where(signs_agree(u, x), 0.0, x)
    rate = 1.0 if form.endswith("independent") else r
    at = x + u if form.startswith("stepped") else x
    return u - rate * w * at

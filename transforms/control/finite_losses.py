"""Steps that look at the loss, where there is none."""

import optax

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import isfinite
from ..notation.signal import Signal
from ..notation.steps import tap
from .periods import when


@transformation()
def at_finite_losses(inner: optax.GradientTransformation) -> Flow:
    """Runs a transformation where `value` is finite; elsewhere params and inner state stay.

    A transformation to send signals through.

    The average of a loss that was NaN once would be NaN ever after. The tap `value_is_finite` says
    whether it ran.

    Args:
      inner: any transformation.
    """

    def step(g: Signal, value: Signal) -> Signal:
        return g >> when(tap("value_is_finite", isfinite(value)), inner, otherwise=0.0)

    return flow(step)

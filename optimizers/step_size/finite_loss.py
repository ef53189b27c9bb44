"""Steps that need the loss, where there is none."""

import optax

from ...transforms import Flow, Signal, flow, isfinite, when


def at_finite_losses(inner: optax.GradientTransformation) -> Flow:
    """Runs a transformation where `value` is finite; elsewhere params and inner state stay.

    The average of a loss that was NaN once would be NaN ever after.

    Args:
      inner: any transformation.
    """

    def step(g: Signal, value: Signal) -> Signal:
        return g >> when(isfinite(value), inner, otherwise=0.0)

    return flow(step)

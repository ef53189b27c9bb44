"""The last step of a chain: the learning rate."""

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.hyperparameters import NonNegative
from ..notation.signal import Signal
from ..notation.steps import scheduled


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

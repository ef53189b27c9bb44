"""Statistics of the first step that are kept for good."""

import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift
from ..notation.signal import Signal
from ..notation.steps import delay, step_count


@transformation()
def freeze_first() -> Flow:
    """Gives what came in at the first step, at this and every later step.

    A transformation to send signals through.
    """

    def step(x: Signal) -> Signal:
        held = delay(x)
        first = lift(lambda t, new, old: jnp.where(t == 1, new, old), "freeze_first")
        return held << first(step_count(), x, held)

    return flow(step)

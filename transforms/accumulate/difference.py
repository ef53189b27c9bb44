"""The change of a signal since the last step."""

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift
from ..notation.signal import Signal
from ..notation.steps import delay, step_count


@transformation()
def difference(from_first: bool = False) -> Flow:
    """g_t - g_{t-1}, with g_0 = 0.

    A transformation to send signals through.

    Args:
      from_first: the first difference is 0, as if g_0 were g_1.
    """

    def step(g: Signal) -> Signal:
        past = delay(g)
        past << g
        if not from_first:
            return g - past
        return lift(_unless_first, "difference")(g, past, step_count())

    return flow(step)


def _unless_first(g: jax.Array, past: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.where(t == 1, 0, g - past)

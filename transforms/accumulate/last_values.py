"""The last values of a signal, in the order of their age."""

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift
from ..notation.hyperparameters import Size
from ..notation.signal import Signal
from ..notation.steps import delay


@transformation()
def last_values(length: Size) -> Flow:
    """The last `length` values, this step's included, stacked along a new leading axis.

    A transformation to send signals through.

    The oldest comes first. Before the window is full it begins with zeros.

    Args:
      length: how many values.
    """

    def step(g: Signal) -> Signal:
        past = delay(slots_like(g, length))
        shifted = lift(lambda stack, x: jnp.concatenate([stack[1:], x[None]]), "last_values")
        return past << shifted(past, g)

    return flow(step)


def slots_like(g: Signal, length: int) -> Signal:
    """Zeros that hold `length` values of a signal along a new leading axis."""

    def stacked(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.zeros_like(x), (length, *x.shape))

    return lift(stacked, "slots")(g)

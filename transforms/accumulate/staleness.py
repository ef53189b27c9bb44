"""Gradients that arrive late."""

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift
from ..notation.hyperparameters import Length
from ..notation.signal import Signal
from ..notation.steps import delay, step_count


@transformation()
def delay_gradients(steps: Length) -> Flow:
    """Hands on the gradient of `steps` updates ago: zeros before there is one.

    A transformation to send signals through.

    In front of an optimizer it simulates asynchronous training.

    Args:
      steps: how many updates the gradients are late.
    """
    if steps == 0:
        return flow(lambda g: g)

    def step(g: Signal) -> Signal:
        past = delay(_stacked(g, steps=steps), name="past_grads")
        slot = (step_count() - 1) % steps
        past << _put(past, g, slot)
        return _taken(past, slot)

    return flow(step)


_stacked = lift(lambda x, steps: jnp.zeros((steps, *x.shape), x.dtype), "window")
_put = lift(lambda window, x, slot: window.at[slot].set(x), "put")


@lift
def _taken(window: jax.Array, slot: jax.Array) -> jax.Array:
    return window[slot]

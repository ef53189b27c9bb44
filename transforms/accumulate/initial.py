"""The params at which the training began."""

from ..notation.scope import current_builder
from ..notation.signal import Signal
from ..notation.steps import delay, input_signal

NAME = "initial_params"


def initial_params() -> Signal:
    """The params that `init` was given, as a signal; the state keeps one copy of them.

    A function of signals.

    A step that asks for them needs `params`, like one that takes them as an argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms import flow, initial_params
      >>> back = flow(lambda g, params: initial_params() - params)
      >>> state = back.init(jnp.array([3.0]))
      >>> back.update(jnp.zeros(1), state, jnp.array([1.0]))[0].tolist()
      [2.0]
    """
    builder = current_builder(NAME)
    for made in builder.delays:
        if made.hint == NAME and made.scope is builder.scope:
            return made
    start = delay(input_signal(builder, "params"), name=NAME)
    return start << start

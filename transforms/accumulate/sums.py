"""Sums over the steps."""

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.hyperparameters import DType
from ..notation.signal import Signal
from ..notation.steps import Start, delay


@transformation()
def running_sum(*, start: Start | None = None, dtype: DType | None = None) -> Flow:
    """The sum of everything so far.

    A transformation to send signals through.

        s_t = s_{t-1} + x_t

    A sum that forgets, s_t = decay s_{t-1} + x_t, is `trace(decay)`.

    Args:
      start: what it starts at instead of zero; see `delay`.
      dtype: storage dtype; default that of the signal, at least float32.
    """

    def step(x: Signal) -> Signal:
        past = delay(x, start, dtype=dtype)
        return past << past + x

    return flow(step)

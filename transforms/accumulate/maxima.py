"""The second moment of infinite order."""

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import maximum
from ..notation.hyperparameters import Decay, NonNegative
from ..notation.signal import Signal
from ..notation.steps import delay


@transformation()
def decayed_max(decay: Decay, eps: NonNegative = 0.0) -> Flow:
    """The largest magnitude of each entry, forgotten geometrically.

    A transformation to send signals through.

        u_t = max(decay u_{t-1}, |g_t| + eps)

    It is the limit of the p-th root of an average of |g|^p for large p; being a maximum, it has no
    bias to be corrected.

    Args:
      decay: in [0, 1).
      eps: added to every new magnitude, and thereby decayed with it.

    References:
      Kingma & Ba 2015, Adam: A Method for Stochastic Optimization (section 7.1).
    """

    def step(g: Signal) -> Signal:
        past = delay(abs(g))
        return past << maximum(decay * past, abs(g) + eps)

    return flow(step)

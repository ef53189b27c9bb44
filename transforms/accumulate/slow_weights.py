"""Slow weights that the fast ones return to."""

from ..notation import Signal, delay, where
from ..notation.checks import checked
from ..notation.hyperparameters import Hyperparameter


@checked()
def back_to_slow_weights(
    u: Signal, params: Signal, sync: Signal, slow_step_size: Hyperparameter
) -> Signal:
    """An update that, where `sync` is true, ends at slow weights on the way.

    A function of signals. The slow weights start at the params; where `sync` is true they go the
    share `slow_step_size` of the way to params + u, and the update returned leads there; elsewhere
    it is u. `eval_params` gives the slow weights.

    Args:
      u: the update of the fast weights.
      params: the fast weights.
      sync: whether to synchronise, a scalar.
      slow_step_size: share of the way that is kept.
    """
    slow = delay(params, name="slow", evaluation=(1.0, 0.0))
    new = slow << where(sync, slow + slow_step_size * (params + u - slow), slow)
    return where(sync, new - params, u)

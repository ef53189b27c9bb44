"""Rounds of steps that each worker makes alone, from where all start together."""

from dataclasses import dataclass

from ..notation.checks import checked
from ..notation.functions import where
from ..notation.hyperparameters import Period
from ..notation.signal import Delay, Signal
from ..notation.steps import delay, step_count
from .signals import mean_when


@dataclass(frozen=True)
class Round:
    """A round of local steps, as signals.

    Attributes:
      ends: whether this step is its last.
      start: the params at which all workers started it.
      displacement: start minus end, the mean over the workers; to be read where it ends.
      local: the worker's own update.
      params: the worker's own params.
    """

    ends: Signal
    start: Delay
    displacement: Signal
    local: Signal
    params: Signal

    def restarted_at(self, new: Signal) -> Signal:
        """The update that leads to new common params where the round ends, else the local one."""
        self.start << where(self.ends, new, self.start)
        return where(self.ends, new - self.params, self.local)


@checked()
def local_round(
    update: Signal, params: Signal, num_local_steps: Period, axis_name: str | None
) -> Round:
    """What becomes of local updates at the end of a round; `eval_params` gives its start.

    A function of signals.

    Args:
      update: each worker's own.
      params: each worker's own.
      num_local_steps: length of a round.
      axis_name: the axis along which the workers lie; None: there is one.
    """
    ends = step_count() % num_local_steps == 0
    start = delay(params, name="anchor", evaluation=(1.0, 0.0))
    share = 1 / num_local_steps if isinstance(num_local_steps, int) else 1.0
    displacement = mean_when(ends, start - (params + update), axis_name, share=share)
    return Round(ends, start, displacement, update, params)

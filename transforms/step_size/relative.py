"""The learning rate as a multiple of what it was at first."""

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.functions import lift
from ..notation.hyperparameters import NonNegative, Positive, Scalar
from ..notation.steps import delay, scheduled, step_count


@checked()
def relative_rate(
    learning_rate: NonNegative,
    base_rate: Positive | None = None,
    label: str = "relative_rate",
    remedy: str = "give the base rate, too",
) -> Scalar:
    """The rate of this step as a multiple of its base.

    A function of signals.

    An array, or a signal, may be another one at the next step, as an injected hyper-parameter is:
    its first value is kept in the state. So is that of a number, which makes the state the same
    whether a rate is injected or not.

    Args:
      learning_rate: number or schedule.
      base_rate: what it is compared with; default the rate of the first step.
      label: the method, for messages.
      remedy: what to write where the first rate is 0, for messages.

    Raises:
      FlowError: if the first rate is known to be 0 and no base is given.
    """
    if base_rate is not None:
        return scheduled(learning_rate) / scheduled(base_rate)
    if callable(learning_rate):
        schedule = learning_rate
        _refuse_zero(schedule(0), label, remedy)
        # At run time, not now: in the precision of the run.
        return lift(lambda t: schedule(t - 1) / schedule(0), "relative_rate")(step_count())
    _refuse_zero(learning_rate, label, remedy)
    past = delay(0.0, name="first_rate")
    chosen = lift(lambda t, rate, past: jnp.where(t == 1, rate, past), "first rate")
    return learning_rate / (past << chosen(step_count(), learning_rate, past))


def _refuse_zero(first: object, label: str, remedy: str) -> None:
    is_known = isinstance(first, int | float | jax.Array) and not isinstance(first, jax.core.Tracer)
    if is_known and first == 0:
        raise FlowError(
            f"{label}: learning_rate starts at 0, so nothing can be relative to its first "
            f"value; {remedy}"
        )

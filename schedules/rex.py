"""REX: the profile for training on a budget."""

import jax
import optax

from ..registry import schedule
from .arguments import check, check_steps
from .combinators import sampled
from .decay_shapes import rational
from .steps import Numeric, between, fractions


def _short_rex(peak_value: float, total_steps: int) -> optax.Schedule:
    return rex(peak_value, total_steps)


@schedule(
    "Chen, Wolfe & Kyrillidis 2021, REX: Revisiting Budgeted Training with an Improved Schedule",
    arxiv="2107.04197",
    build=_short_rex,
)
def rex(
    init_value: Numeric,
    transition_steps: int,
    end_value: Numeric = 0.0,
    beta: Numeric = 0.5,
    sampling_steps: int = 1,
) -> optax.Schedule:
    r"""Slow at the beginning and steep at the end: the reflected exponential.

    .. math::
        z = 1 - \min(c, T)/T, \qquad
        v(c) = v_{end} + (v_{init} - v_{end})\, \frac{z}{(1 - \beta) + \beta z}

    Args:
      init_value: rate at step 0.
      transition_steps: the budget T in steps; `end_value` holds after it.
      end_value: rate at the end.
      beta: in [0, 1); 0 is the linear schedule, towards 1 the initial rate is held for longer.
      sampling_steps: the rate is read every so many steps and held between; see `sampled`.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> schedule = rex(1.0, transition_steps=8)
      >>> [round(float(schedule(c)), 3) for c in (0, 2, 4, 6, 8)]
      [1.0, 0.857, 0.667, 0.4, 0.0]

    References:
      Chen, Wolfe & Kyrillidis 2021, https://arxiv.org/abs/2107.04197, beta = 1/2. A widespread
      port has 0.9 in its place, and others run one step ahead; the paper is followed.
    """
    check("init_value", init_value)
    check("end_value", end_value)
    check("beta", beta, 0.0, 1.0, open_high=True)
    length = check_steps("transition_steps", transition_steps, 1)
    shape = rational(beta)

    def rate(count: Numeric) -> jax.Array:
        return between(init_value, end_value, shape(*fractions(count, 0, length)))

    return sampled(rate, sampling_steps)

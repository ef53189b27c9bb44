"""The rate that drops when a metric stops improving."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..registry import schedule
from .arguments import check, check_steps
from .steps import Numeric, as_float, within


class PlateauState(NamedTuple):
    """State of `reduce_on_plateau`: four scalars, saved and restored like any other pytree.

    Attributes:
      value: the rate, in force from the step after the report on.
      best: the lowest metric so far.
      bad_count: reports since it improved.
      cooldown_count: reports for which bad ones are still not counted.
    """

    value: jax.Array
    best: jax.Array
    bad_count: jax.Array
    cooldown_count: jax.Array


class Plateau(NamedTuple):
    """A controller: `state = init()`, then `state = update(state, metric)` per report."""

    init: Callable[[], PlateauState]
    update: Callable[[PlateauState, Numeric], PlateauState]


@schedule(
    "The plateau rule of torch.optim.lr_scheduler.ReduceLROnPlateau, a baseline of REX",
    kind="controller",
)
def reduce_on_plateau(
    init_value: Numeric,
    factor: Numeric = 0.1,
    patience: int = 10,
    rtol: Numeric = 1e-4,
    cooldown: int = 0,
    min_value: Numeric = 0.0,
) -> Plateau:
    """Multiplies the rate by a factor when a metric has not improved for a while.

    Per reported metric m, to be minimised::

        if m < best * (1 - rtol):  best = m, bad = 0
        else:                      bad = bad + 1
        if cooldown_count > 0:     cooldown_count -= 1, bad = 0
        if bad > patience:         value = max(value * factor, min_value),
                                   cooldown_count = cooldown, bad = 0

    A change of 1e-8 or less is not made. A metric that is NaN is a bad one.

    Args:
      init_value: the first rate.
      factor: of each drop, in (0, 1).
      patience: number of bad reports in a row that are tolerated.
      rtol: relative improvement that counts as one.
      cooldown: number of reports after a drop that are not counted as bad.
      min_value: the rate is not reduced below.

    Returns:
      A controller with `init` and `update`, which may be used inside or outside of jit.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> controller = reduce_on_plateau(1.0, factor=0.5, patience=1)
      >>> state, rates = controller.init(), []
      >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0):
      ...     state = controller.update(state, loss)
      ...     rates.append(float(state.value))
      >>> rates
      [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]

    References:
      torch's ReduceLROnPlateau in mode "min" with a relative threshold;
      `optax.contrib.reduce_on_plateau` counts averaged windows instead.
    """
    check("init_value", init_value)
    check("factor", factor, 0.0, 1.0, open_low=True, open_high=True)
    check("rtol", rtol, 0.0, 1.0)
    check("min_value", min_value)
    patience = check_steps("patience", patience)
    cooldown = check_steps("cooldown", cooldown)

    def init() -> PlateauState:
        zero = jnp.zeros([], jnp.int32)
        return PlateauState(as_float(init_value), as_float(jnp.inf), zero, jnp.zeros_like(zero))

    def update(state: PlateauState, metric: Numeric) -> PlateauState:
        better = metric < state.best * (1 - rtol)
        cooling = state.cooldown_count > 0
        bad = jnp.where(better | cooling, 0, state.bad_count + 1)
        drop = bad > within(state.bad_count, patience)
        lower = jnp.maximum(state.value * factor, min_value)
        changes = drop & (state.value - lower > 1e-8)
        left = jnp.maximum(state.cooldown_count - 1, 0)
        return PlateauState(
            jnp.where(changes, lower, state.value),
            jnp.where(better, as_float(metric), state.best),
            jnp.where(drop, 0, bad),
            jnp.where(drop, within(left, cooldown), left),
        )

    return Plateau(init, update)

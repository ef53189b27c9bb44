"""The slope of the loss along a direction that is a signal."""

from typing import Any

import jax
import jax.numpy as jnp

from ..closures.checks import LossFunction
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Hyperparameter
from ..notation.known import each
from ..notation.roots import saturated
from ..notation.signal import Signal
from ..notation.values import Leaves
from .losses import base_point, loss_function, moved
from .spsa import known_slopes
from .ties import unfused


@checked()
def slope_along(
    value_fn: Signal | None,
    given: Signal | None,
    params: Signal,
    direction: Signal,
    perturbation_scale: Hyperparameter,
) -> Signal:
    """(L(theta + eps d) - L(theta - eps d)) / (2 eps), a scalar signal.

    A function of signals.

    For methods whose directions are computed; `spsa_gradient` redraws random ones.

    Args:
      value_fn: params -> loss, the input of that name.
      given: a slope that is known already; then nothing is evaluated.
      params: the params.
      direction: d, a tree signal.
      perturbation_scale: eps.
    """
    return _slope(value_fn, given, params, direction, perturbation_scale)


def _slope_of(
    context: Context,
    value_fn: LossFunction | None,
    given: Any,
    at: Leaves,
    direction: Leaves,
    scale: float | jax.Array,
) -> jax.Array:
    if given is not None:
        return known_slopes(given, 1, context)
    point = base_point(context, at)
    loss = loss_function(context, value_fn, point)
    signs = jnp.asarray([1.0, -1.0], context.scalar_dtype)
    above, below = each(
        lambda sign: loss(moved(point, direction, sign * scale)), signs, beside=direction
    )
    return unfused(saturated(((above - below) / (2 * scale)).astype(context.scalar_dtype)))


_slope = lift_tree(
    _slope_of, "slope_along", context=True, out="scalar", needs=("params", "value_fn")
)

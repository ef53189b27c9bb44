"""The step size of adaptive gradient descent without descent."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import global_norm, lift, sqrt
from ..notation.hyperparameters import NonNegative
from ..notation.roots import root
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled


@checked()
def adgd_step_size(
    learning_rate: NonNegative,
    params: Signal,
    grads: Signal,
    previous: Callable[[Signal], Signal],
    weights: Signal,
) -> Signal:
    """The rate of Malitsky and Mishchenko in a diagonal norm: no line search, no constants.

    A function of signals.

        rate_t = min( sqrt(1 + ratio_{t-1}) rate_{t-1}, |dx|_D / (2 |dg|_{1/D}) )
        ratio_t = rate_t / rate_{t-1},    rate_1 = learning_rate,    ratio_1 = infinity

    dx and dg are the changes of the params and of the gradient since the last step. Where one of
    them is zero the rate grows as far as it may. It stays where that is infinite, and where a
    change is not finite, which says nothing of the curvature. A scalar signal; the params of the
    last step are kept in the state.

    Args:
      learning_rate: the first rate; number or schedule, whose first positive value counts.
      params: the input `params`.
      grads: the gradient at params.
      previous: function of last step's params, a signal, to the gradient there, a signal; of the
        same batch, or the rate measures noise.
      weights: D, positive.

    References:
      Malitsky & Mishchenko 2020, Adaptive gradient descent without descent (arXiv 1910.09529).
    """
    at = delay(params, name="previous_params")
    rate, before = delay(0.0, name="rate"), delay(0.0, name="previous_rate")
    dg = grads - previous(at)
    # norms and no sums of squares: those of gradients of 1e-30 are 0
    moved = global_norm(sqrt(weights) * (params - at))
    changed = global_norm(dg / sqrt(weights))
    at << params
    before << rate
    return rate << _next_rate(scheduled(learning_rate), rate, before, moved, changed)


def _next(
    first: float | jax.Array,
    rate: jax.Array,
    before: jax.Array,
    moved: jax.Array,
    changed: jax.Array,
) -> jax.Array:
    is_second = before == 0
    growth = root(1 + rate / jnp.where(is_second, 1, before))
    allowed = jnp.where(is_second, jnp.inf, growth * rate)
    is_still = (moved == 0) | (changed == 0)
    ratio = jnp.where(is_still, 1, moved) / jnp.where(is_still, 1, 2 * changed)
    measured = jnp.where(is_still, allowed, ratio)
    new = jnp.minimum(allowed, measured)
    return jnp.where(rate == 0, first, jnp.where(jnp.isfinite(new) & (new > 0), new, rate))


_next_rate = lift(_next, "adgd_step_size")

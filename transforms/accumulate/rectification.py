"""The variance rectification of RAdam."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import lift_elementwise
from ..notation.hyperparameters import Decay
from ..notation.roots import root
from ..notation.signal import Signal
from ..notation.steps import step_count


class Rectification(NamedTuple):
    """How far a second moment can be trusted.

    Attributes:
      length: n_t, the number of gradients in an equivalent simple average.
      factor: r_t in [0, 1], by which a step is shortened; 0 where n_t <= 4.
    """

    length: Signal
    factor: Signal


@checked()
def radam_rectification(b2: Decay) -> Rectification:
    """The rectification of RAdam at this step, as two scalar signals.

    A function of signals.

        n_inf = 2 / (1 - b2) - 1,   n_t = n_inf - 2 t b2^t / (1 - b2^t)
        r_t = sqrt( (n_t - 4)(n_t - 2) n_inf / ((n_inf - 4)(n_inf - 2) n_t) )

    Methods differ in the length from which on they trust it (5, or anything above 4) and in what
    they do before; both are left to them.

    Args:
      b2: decay of the second moment, in [0, 1).

    References:
      Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond (arXiv 1908.03265).
    """
    length = lift_elementwise(lambda t, b: _length(*_longest(b), t), "sma_length")(step_count(), b2)
    factor = lift_elementwise(lambda n, b: _factor(_longest(b)[0], n), "rectification")
    return Rectification(length, factor(length, b2))


def _longest(b2: float | jax.Array) -> tuple[float | jax.Array, float | jax.Array]:
    """The length in the limit, and half the rate at which b2^t decays."""
    if isinstance(b2, int | float):
        return 2 / (1 - b2) - 1, -math.log(b2) / 2 if b2 > 0 else math.inf
    return 2 / (1 - b2) - 1, -jnp.log(b2) / 2


def _length(longest: float | jax.Array, rate: float | jax.Array, t: jax.Array) -> jax.Array:
    # With b2 = exp(-2 rate) the length is t + L(rate) - t L(rate t), L(z) = coth z - 1/z: early
    # on, the textbook form is a difference of numbers near n_inf, in which float32 loses the
    # step at which a threshold is crossed.
    late = rate * t >= 1
    small = jnp.where(late, 1.0, rate * t)
    early_length = t + _langevin(jnp.minimum(rate, 1.0)) - t * _langevin(small)
    power = jnp.exp(-2 * rate * t)
    late_length = longest - 2 * t * power / jnp.where(late, 1 - power, 1.0)
    return jnp.where(late, late_length, early_length)


def _langevin(z: jax.Array) -> jax.Array:
    tiny = z < 0.02
    safe = jnp.where(tiny, 1.0, z)
    series = z / 3 - z**3 / 45 + 2 * z**5 / 945
    return jnp.where(tiny, series, 1 / jnp.tanh(safe) - 1 / safe)


def _factor(longest: float | jax.Array, length: jax.Array) -> jax.Array:
    tractable = (length > 4) & (jnp.asarray(longest) > 4)
    n, n_inf = jnp.where(tractable, length, 5.0), jnp.where(longest > 4, longest, 5.0)
    squared = (n - 4) * (n - 2) * n_inf / ((n_inf - 4) * (n_inf - 2) * n)
    return jnp.where(tractable, root(squared), 0.0)

"""A step of the polynomial average of weights, for loops that keep the average themselves."""

import jax
import jax.numpy as jnp
import optax

from ...transforms import NonNegative, checked
from ...transforms.notation.values import working


@checked()
def polynomial_average_update(
    average: optax.Params, params: optax.Params, t: int | jax.Array, gamma: NonNegative = 8.0
) -> optax.Params:
    r"""The average of the weights after a step, of the one before: `polynomial_averaging` by hand.

    .. math::
        a_t = (1 - c_t) a_{t-1} + c_t y_t, \qquad c_t = \frac{1 + \gamma}{t + \gamma}

    with :math:`y_t` the params after the t-th step. At t = 1 it is :math:`y_1`, whatever the
    average was.

    Args:
      average: of the steps before, a tree like the params.
      params: after the step.
      t: number of the step, from 1 on; may be traced.
      gamma: 0 is the uniform average, 8 weighs the last fifth or so.

    Returns:
      The new average, float32 or wider, where :math:`9 / t` is still a number beside 1; leaves that
      are no floats are those of the params.

    Raises:
      ValueError: for a negative gamma.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import polynomial_average_update
      >>> a = jnp.zeros(1)
      >>> for t, y in enumerate([6.0, 3.0], start=1):
      ...     a = polynomial_average_update(a, jnp.array([y]), t, gamma=1.0)
      >>> a.tolist()
      [4.0]

    References:
      As `polynomial_averaging`.
    """

    def averaged(a: jax.Array, y: jax.Array) -> jax.Array:
        a, y = working(jnp.asarray(a)), working(jnp.asarray(y))
        if not jnp.issubdtype(y.dtype, jnp.inexact):
            return y
        real = jnp.finfo(a.dtype).dtype
        exponent = jnp.asarray(gamma, real)
        c = (1 + exponent) / (jnp.asarray(t, real) + exponent)
        return a + (c * (y.astype(a.dtype) - a)).astype(a.dtype)

    return jax.tree.map(averaged, average, params)

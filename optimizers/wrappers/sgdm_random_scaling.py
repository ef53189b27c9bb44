"""SGD with momentum and random scaling."""

import optax

from ...registry import method
from ...transforms import (
    DType,
    Flow,
    Fraction,
    Key,
    NonNegative,
    Sampler,
    Signal,
    delay,
    flow,
    handed_on,
    scheduled,
    transformation,
)
from .random_scaling import random_scaling


@transformation()
def scale_by_shrinking_momentum(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Fraction = 0.9,
    mu: NonNegative = 0.0,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Discounted online gradient descent on the displacement, rate and sign included.

    .. math::
        D_t = \frac{\beta}{1 + \eta_t \mu} (D_{t-1} - \eta_t g_t)

    Args:
      learning_rate: eta; number or schedule. It is inside the buffer.
      momentum: beta, in [0, 1]; with 1, as in the authors' file, mu alone shrinks.
      mu: strength of the regulariser that shrinks the displacement.
      mu_dtype: storage of the momentum; default at least float32.

    References:
      Zhang & Cutkosky 2024, Random Scaling and Momentum for Non-smooth Non-convex Optimization
      (arXiv 2405.09742).
    """

    def step(g: Signal) -> Signal:
        displacement = delay(g, name="displacement")
        rate = scheduled(learning_rate)
        return displacement << scheduled(momentum) / (1 + rate * scheduled(mu)) * (
            displacement - rate * g
        )

    return flow(step)


@method(
    "Zhang & Cutkosky 2024, Random Scaling and Momentum for Non-smooth Non-convex Optimization",
    arxiv="2405.09742",
    tags=("noise", "momentum"),
    learning_rate=1e-2,
)
@transformation()
def sgdm_random_scaling(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Fraction = 0.9,
    mu: NonNegative = 0.0,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Momentum whose every step is scaled by an exponential draw of mean 1.

    The displacement is that of `scale_by_shrinking_momentum`, the scaling `random_scaling`. With a
    constant draw of 1 and mu = 0 it is heavy ball with rate momentum * learning_rate.

    Args:
      learning_rate, momentum, mu: see `scale_by_shrinking_momentum`.
      key, sampler: see `random_scaling`.
      mu_dtype: see `scale_by_shrinking_momentum`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgdm_random_scaling
      >>> opt = sgdm_random_scaling(0.5, momentum=0.5, sampler=lambda key, count, params: 2.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> opt.update(2 * params, opt.init(params), params)[0].tolist()
      [-1.0, 1.0]

    References:
      Zhang & Cutkosky 2024, Random Scaling and Momentum for Non-smooth Non-convex Optimization
      (arXiv 2405.09742). The authors' file has momentum 1 and mu 0 as defaults; 0.9 is ours.
    """
    return random_scaling(handed_on(scale_by_shrinking_momentum), key, sampler)

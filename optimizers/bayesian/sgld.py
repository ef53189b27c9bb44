"""Stochastic gradient Langevin dynamics."""

import inspect
from collections.abc import Callable
from typing import Any

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Hyperparameter,
    Key,
    Mask,
    NonNegative,
    Sampler,
    Signal,
    chain,
    decay_weights,
    draw_like,
    flow,
    scheduled,
    sqrt,
    transformation,
)


@method(
    "Welling & Teh 2011, Bayesian Learning via Stochastic Gradient Langevin Dynamics",
    tags=("noise",),
    learning_rate=0.1,
    small_model={"temperature": 1e-6},
)
@transformation()
def sgld(
    learning_rate: optax.ScalarOrSchedule,
    temperature: NonNegative = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    noise_fn: Sampler | None = None,
) -> Flow:
    r"""Half a gradient step, and noise of the step's size: the params are samples of a posterior.

    With g the gradient of the negative log posterior U, of a minibatch of n out of N examples
    :math:`\nabla U = -\nabla \log p(\theta) - \tfrac N n \sum \nabla \log p(x | \theta)`:

    .. math::
        \theta \leftarrow \theta - \frac h 2 g + \sqrt{h T}\, \xi, \qquad \xi \sim N(0, I)

    The gradient of a mean loss has to be multiplied by N first; or, which is the same, the rate is
    N h and the temperature T / N.

    Args:
      learning_rate: h; number or schedule. Samples are asymptotically exact where it falls such
        that its sum is infinite and that of its squares is not.
      temperature: T; 1 samples the posterior, 0 is plain descent at the rate h / 2.
      weight_decay: the precision of a Gaussian prior around 0, whose gradient is added.
      mask: leaves that have the prior: a tree of booleans, or a function of the params; default
        all.
      key: seed or key of the noise, of which workers along an axis need the same.
      noise_fn: `(step, params) -> tree` of standard normals in place of the draw, or, as elsewhere,
        `(key, count, params) -> tree`; step and count are 0 at first.

    Returns:
      The sampler, a transformation as any optimizer; its state is a key and a counter.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from gradchain.optimizers import sgld
      >>> opt, x = sgld(0.1), jnp.full(1000, 3.0)           # U = x^2 / 2: a standard normal
      >>> def step(carry, _):
      ...     x, state = carry
      ...     updates, state = opt.update(x, state, x)
      ...     return (optax.apply_updates(x, updates), state), None
      >>> samples = jax.lax.scan(step, (x, opt.init(x)), length=200)[0][0]
      >>> print(abs(samples.mean()) < 0.1, abs(samples.std() - 1) < 0.1)
      True True

    References:
      Welling & Teh 2011, Bayesian Learning via Stochastic Gradient Langevin Dynamics.
    """

    def step(g: Signal) -> Signal:
        return langevin(g, learning_rate, temperature, key, noise_fn)

    return chain(decay_weights(weight_decay, mask=mask), flow(step, name="langevin"))


def langevin(
    g: Signal, learning_rate: Any, temperature: Hyperparameter, key: Key, noise_fn: Sampler | None
) -> Signal:
    """The step along a gradient of the negative log posterior."""
    h = scheduled(learning_rate)
    xi = draw_like(g, key, sampler=noise_fn and _as_sampler(noise_fn))
    return sqrt(h * scheduled(temperature)) * xi - h / 2 * g


def _as_sampler(noise_fn: Callable[..., Any]) -> Sampler:
    """`(step, params)` may be all that noise is drawn by."""
    try:
        inspect.signature(noise_fn).bind(None, 0, None)
    except TypeError:
        return lambda key, count, params: noise_fn(count, params)
    return noise_fn

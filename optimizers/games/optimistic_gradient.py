"""Optimistic gradient descent."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Number,
    Signal,
    chain,
    difference,
    flow,
    scale_by_learning_rate,
    scheduled,
    transformation,
)
from ...transforms.notation import handed_on


@transformation()
def scale_by_optimistic_gradient(alpha: Number = 1.0, beta: Number = 1.0) -> Flow:
    """The gradient, and what has changed in it since the last step.

        d_t = (alpha + beta) g_t - beta g_{t-1},    g_0 = g_1

    With both at 1 it is 2 g_t - g_{t-1}. Behind another scaling, such as Adam's, it makes that
    optimistic.

    Args:
      alpha: weight of the gradient.
      beta: weight of its change.

    References:
      Daskalakis, Ilyas, Syrgkanis & Zeng 2018, Training GANs with Optimism (arXiv 1711.00141);
      Mokhtari, Ozdaglar & Pattathil 2020 (arXiv 1901.08511) for alpha and beta.
    """

    def step(g: Signal) -> Signal:
        return scheduled(alpha) * g + scheduled(beta) * (g >> difference(from_first=True))

    return flow(step)


@method(
    "Daskalakis, Ilyas, Syrgkanis & Zeng 2018, Training GANs with Optimism",
    arxiv="1711.00141",
    tags=("games",),
    learning_rate=0.1,
)
@transformation()
def optimistic_gradient(
    learning_rate: optax.ScalarOrSchedule, alpha: Number = 1.0, beta: Number = 1.0
) -> Flow:
    """Optimistic gradient descent; the direction is that of `scale_by_optimistic_gradient`.

    The rate of a step multiplies both gradients of its direction; `past_extragradient` gives each
    the rate that it was taken with, and starts with twice the gradient.

    Args:
      learning_rate: number or schedule.
      alpha, beta: see `scale_by_optimistic_gradient`.

    Returns:
      The optimizer; its state is one copy of the params and a count.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import optimistic_gradient
      >>> opt, params = optimistic_gradient(0.5), jnp.zeros(1)
      >>> first, state = opt.update(jnp.array([1.0]), opt.init(params))
      >>> second, state = opt.update(jnp.array([4.0]), state)
      >>> first.tolist(), second.tolist()
      ([-0.5], [-3.5])

    References:
      Daskalakis, Ilyas, Syrgkanis & Zeng 2018, Training GANs with Optimism (arXiv 1711.00141).
      First step and parameters are those of `optax.optimistic_gradient_descent`.
    """
    return chain(handed_on(scale_by_optimistic_gradient), scale_by_learning_rate(learning_rate))

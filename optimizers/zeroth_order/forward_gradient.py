"""Forward gradients."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Key,
    Mask,
    NonNegative,
    Sampler,
    Size,
    chain,
    decay_weights,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.zeroth_order import Space, forward_mode_gradient


@method(
    "Baydin et al. 2022, Gradients without Backpropagation",
    arxiv="2202.08587",
    tags=("closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def forward_gradient(
    learning_rate: optax.ScalarOrSchedule,
    n_samples: Size = 1,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    normalize: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
    space: Space = "weights",
) -> Flow:
    """Gradient descent on forward-mode derivatives along random directions.

        d = <grad L(theta), v>,   v ~ N(0, I)
        theta <- theta - lr (d v + wd theta),    d v / (|v|^2 + 1e-16) in place of d v if normalize

    Once the loss is infinite, where steps of a loss of slope 1e18 may lead, d counts as 0: the
    params rest but for their decay.

    Args:
      learning_rate: lr; number or schedule.
      weight_decay: wd, multiplied by the rate, on the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      n_samples, normalize, key, sampler, space: see `forward_mode_gradient`.

    Returns:
      The optimizer; `update` needs `params` and a `value_fn` with a forward-mode derivative, and
      may be given None as gradient. Its state is a counter and a key.

    Raises:
      ValueError: for a hyper-parameter out of range, a missing input, or a loss without a
        forward-mode derivative.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import forward_gradient
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = forward_gradient(0.1), jnp.array([1.0, -2.0])
      >>> state = opt.init(x)
      >>> for _ in range(50):
      ...     u, state = opt.update(None, state, x, value_fn=loss)
      ...     x = optax.apply_updates(x, u)
      >>> bool(loss(x) < 1e-2)
      True

    References:
      Baydin et al. 2022 (arXiv 2202.08587); Zhang et al. 2024 (arXiv 2402.11592), whose code
      ZO-Bench/ZO-LLM leaves biases and layer norms out of the decay: our `mask`.
    """
    return chain(
        forward_mode_gradient(n_samples, key, sampler, normalize, space=space),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

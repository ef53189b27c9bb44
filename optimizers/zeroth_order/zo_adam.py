"""ZO-Adam."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Positive,
    Sampler,
    Size,
    bound_squares,
    chain,
    decay_weights,
    flow,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.zeroth_order import spsa_gradient


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("adam", "closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def zo_adam(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    one_sided: bool = False,
    n_samples: Size = 1,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam on zeroth-order estimates.

        m_t = b1 m_{t-1} + (1 - b1) g_t,    v_t = b2 v_{t-1} + (1 - b2) g_t^2
        theta <- theta - lr (m_t / (1 - b1^t) / (sqrt(v_t / (1 - b2^t)) + eps) + wd theta)

    g^2 holds the square of the slope, which dominates it: a step is about sign(z) times the slope
    over its own root mean square; the first moves every entry by lr. Estimates exceed gradients:
    what is beyond half the root of the largest number of the format, 9e18 in float32, is taken for
    that, whose square is a number.

    Args:
      learning_rate: lr; number or schedule.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after the correction.
      weight_decay: wd, decoupled.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      perturbation_scale, one_sided, n_samples, key, sampler: see `spsa_gradient`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`. Its state is twice the size of the
      params.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zo_adam
      >>> opt, x = zo_adam(0.1), jnp.array([1.0, -2.0])
      >>> u, _ = opt.update(None, opt.init(x), x, value_fn=lambda x: jnp.sum(x**2))
      >>> abs(u).round(3).tolist()
      [0.10000000149011612, 0.10000000149011612]

    References:
      Zhang et al. 2024 (arXiv 2402.11592); no weight decay and no schedules in ZO-Bench/ZO-LLM.
    """
    return chain(
        spsa_gradient(perturbation_scale, n_samples, one_sided, key, sampler),
        flow(bound_squares, name="bound_squares"),
        scale_by_adam(b1, b2, eps),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )

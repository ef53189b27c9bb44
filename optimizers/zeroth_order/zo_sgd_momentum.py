"""ZO-SGD with momentum."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Positive,
    Sampler,
    Size,
    chain,
    scale_by_learning_rate,
    trace,
    transformation,
)
from ...transforms.zeroth_order import spsa_gradient


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("momentum", "closure", "noise"),
    learning_rate=0.002,
)
@transformation()
def zo_sgd_momentum(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    momentum: Decay = 0.9,
    one_sided: bool = False,
    n_samples: Size = 1,
    nesterov: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Heavy-ball momentum over zeroth-order estimates.

        m_t = momentum m_{t-1} + g_t
        theta <- theta - lr m_t,    or lr (g_t + momentum m_t)  if nesterov

    Args:
      learning_rate: lr; number or schedule. The buffer grows to 1 / (1 - momentum) estimates, so it
        is smaller than without momentum.
      momentum: undamped, not debiased.
      nesterov: look ahead along the buffer; not in the paper.
      perturbation_scale, one_sided, n_samples, key, sampler: see `spsa_gradient`.
      mu_dtype: storage of the momentum; default at least float32.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`. Its state is the buffer, in float32 at
      least, a counter and a key.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import zo_sgd_momentum
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = zo_sgd_momentum(0.02), jnp.array([1.0, -2.0])
      >>> state = opt.init(x)
      >>> for _ in range(100):
      ...     u, state = opt.update(None, state, x, value_fn=loss)
      ...     x = optax.apply_updates(x, u)
      >>> bool(loss(x) < 0.1)
      True

    References:
      Zhang et al. 2024 (arXiv 2402.11592), ZO-SGD-MMT. The option of ZO-Bench/ZO-LLM is 0 unless
      set; the paper's runs set 0.9.
    """
    return chain(
        spsa_gradient(perturbation_scale, n_samples, one_sided, key, sampler),
        trace(momentum, nesterov),
        scale_by_learning_rate(learning_rate),
    )

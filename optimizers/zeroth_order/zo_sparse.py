"""ZO-SGD along sparse directions."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Fraction,
    Key,
    Period,
    Positive,
    Sampler,
    chain,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.zeroth_order import sparse_directions, spsa_gradient


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("low-memory", "closure", "noise"),
    learning_rate=0.1,
)
@transformation()
def zo_sparse(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    sparsity: Fraction = 0.9,
    update_interval: Period = 1,
    one_sided: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
    mask_fn: Sampler | None = None,
    normal_threshold: bool = False,
) -> Flow:
    """Gradient descent on zeroth-order estimates that move few entries.

        z~ = k * z,   k = 0 with probability `sparsity`, else 1,   z ~ N(0, I)
        theta <- theta - lr c z~,   c the slope along z~

    The estimate is (1 - sparsity) times as long in the mean as with all entries; it is not scaled
    up. In front of another optimizer: `sparse_directions`.

    Args:
      learning_rate: lr; number or schedule.
      sparsity: probability that an entry is left out; a tree of them goes into `sparse_directions`.
      update_interval, mask_fn, normal_threshold: see `sparse_directions`.
      perturbation_scale, one_sided, key: see `spsa_gradient`.
      sampler: `(key, count, params) -> tree` of the dense directions z; count is 1 at the first
        step.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`. Its state is a counter and a key, from
      which directions and masks are redrawn.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zo_sparse
      >>> opt, x = zo_sparse(0.1, sparsity=0.9), jnp.ones(1000)
      >>> u, _ = opt.update(None, opt.init(x), x, value_fn=lambda x: jnp.sum(x**2))
      >>> 50 < int(jnp.sum(u != 0)) < 150
      True

    References:
      Zhang et al. 2024 (arXiv 2402.11592). ZO-Bench/ZO-LLM leaves out more than `sparsity`, which
      is `normal_threshold=True`; we take the share that is asked for.
    """
    masked = sparse_directions(sampler, sparsity, update_interval, mask_fn, normal_threshold)
    return chain(
        spsa_gradient(perturbation_scale, 1, one_sided, key, masked),
        scale_by_learning_rate(learning_rate),
    )

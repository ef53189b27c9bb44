"""ZO-SignSGD."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Key,
    Positive,
    Sampler,
    Signal,
    Size,
    chain,
    flow,
    scale_by_learning_rate,
    sign,
    transformation,
)
from ...transforms.zeroth_order import spsa_gradient


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("sign", "closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def zo_sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    one_sided: bool = False,
    n_samples: Size = 1,
    elementwise: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """Steps along the direction with the sign of its slope.

        theta <- theta - lr (1/n) sum_i sign(c_i) z_i               (default)
        theta <- theta - lr sign((1/n) sum_i c_i z_i)               if elementwise

    Equal losses give a slope of 0, and no step.

    Args:
      learning_rate: lr; number or schedule. Elementwise it is how far each entry moves.
      elementwise: the sign of each entry of the estimate (the paper's formula).
      perturbation_scale, one_sided, n_samples, key, sampler: see `spsa_gradient`.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`. Its state is a counter and a key.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zo_sign_sgd
      >>> opt, x = zo_sign_sgd(0.1, elementwise=True), jnp.array([1.0, -2.0])
      >>> u, _ = opt.update(None, opt.init(x), x, value_fn=lambda x: jnp.sum(x**2))
      >>> abs(u).round(3).tolist()
      [0.10000000149011612, 0.10000000149011612]

    References:
      Zhang et al. 2024 (arXiv 2402.11592). The paper signs the entries; ZO-Bench/ZO-LLM, which
      gave its results, signs the slope, and so do we by default.
    """
    estimator = spsa_gradient(
        perturbation_scale,
        n_samples,
        one_sided,
        key,
        sampler,
        slope_transform=None if elementwise else sign,
    )

    def step(g: Signal) -> Signal:
        estimate = g >> estimator
        return sign(estimate) if elementwise else estimate

    return chain(flow(step), scale_by_learning_rate(learning_rate))

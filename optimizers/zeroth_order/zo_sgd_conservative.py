"""ZO-SGD-Cons: a step is kept only where it pays."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Key,
    Positive,
    Sampler,
    Signal,
    flow,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.zeroth_order import best_of_three, spsa_gradient


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def zo_sgd_conservative(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    one_sided: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """A zeroth-order step, its opposite or none, whichever has the lowest loss.

        u = -lr c z,   l0 = L(theta),   l1 = L(theta + u),   l2 = L(theta - u)
        l1 > l0:       theta if l0 < l2, else theta - u
        l1 <= l0:      theta + u if l1 < l2, else theta - u

    A loss that is NaN counts as infinite. The rate is part of the choice, so nothing that rescales
    the update belongs behind it.

    Args:
      learning_rate: lr; number or schedule.
      perturbation_scale, one_sided, key, sampler: see `spsa_gradient`.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`, the same batch for all five
      evaluations. Its state is a counter and a key.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zo_sgd_conservative
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = zo_sgd_conservative(100.0), jnp.array([1.0, -2.0])
      >>> abs(opt.update(None, opt.init(x), x, value_fn=loss)[0]).tolist()
      [0.0, 0.0]

    References:
      Zhang et al. 2024 (arXiv 2402.11592). The paper accepts a step that does not raise the loss;
      ZO-Bench/ZO-LLM also tries the reversed one, and so do we.
    """

    def step(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        estimate = g >> spsa_gradient(perturbation_scale, 1, one_sided, key, sampler)
        return best_of_three(value_fn, params, estimate >> scale_by_learning_rate(learning_rate))

    return flow(step)

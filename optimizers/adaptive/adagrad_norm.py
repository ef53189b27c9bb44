"""AdaGrad-Norm."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    NonNegative,
    NonNegativeConstant,
    Signal,
    chain,
    divide_or_zero,
    flow,
    running_norm,
    scale_by_learning_rate,
    tap,
    transformation,
)


@transformation()
def scale_by_sum_of_norms(
    initial_accumulator_value: NonNegativeConstant = 1e-2, eps: NonNegative = 1e-10
) -> Flow:
    """The gradient over the root of the sum of all squared gradient norms.

        S_t = S_{t-1} + |g_t|^2,    S_0 = initial_accumulator_value
        u_t = g_t / (sqrt(S_t) + eps)

    with the norm over all leaves: the denominator of `dog` under a constant numerator. What is 0/0
    is 0. The tap "step_size" is the factor of g_t. The state holds the root of S, which is a number
    where squares are none.

    Args:
      initial_accumulator_value: S_0.
      eps: added to the root.

    References:
      Lau, Liu & Kolar 2024, AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods
      (arXiv 2402.11215): the scalar form of the paper; the file of its code that bears the name has
      one sum per row of outputs.
    """

    def step(g: Signal) -> Signal:
        total = running_norm(g, start_square=initial_accumulator_value, name="norm_grads")
        return tap("step_size", divide_or_zero(1.0, total + eps)) * g

    return flow(step)


@method(
    "Lau, Liu & Kolar 2024, AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods",
    arxiv="2402.11215",
    tags=("sums", "low-memory"),
    learning_rate=1.0,
)
@transformation()
def adagrad_norm(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    initial_accumulator_value: NonNegativeConstant = 1e-2,
    eps: NonNegative = 1e-10,
) -> Flow:
    """AdaGrad-Norm, one step size for all params; the rule is that of `scale_by_sum_of_norms`.

    `adaptive_batch_size` is the batch size that goes with it.

    Args:
      learning_rate: number or schedule.
      initial_accumulator_value, eps: see `scale_by_sum_of_norms`.

    Returns:
      The optimizer; its state is one number.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adagrad_norm
      >>> opt = adagrad_norm(1.0, initial_accumulator_value=11.0, eps=0.0)
      >>> g = jnp.array([3.0, -4.0])
      >>> [round(float(u), 3) for u in opt.update(g, opt.init(g))[0]]
      [-0.5, 0.667]
    """
    return chain(
        scale_by_sum_of_norms(initial_accumulator_value=initial_accumulator_value, eps=eps),
        scale_by_learning_rate(learning_rate),
    )

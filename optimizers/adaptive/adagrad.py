"""AdaGrad."""

import optax

from ...registry import method
from ...transforms import (
    DType,
    Flow,
    NonNegative,
    NonNegativeConstant,
    Signal,
    chain,
    divide_or_zero,
    flow,
    running_sum,
    scale_by_learning_rate,
    sqrt,
    square,
    transformation,
)


@transformation()
def scale_by_rss(
    initial_accumulator_value: NonNegativeConstant = 0.1,
    eps: NonNegative = 1e-7,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """The gradient over the root of the sum of all its squares, entry by entry.

        s_t = s_{t-1} + g_t^2,    s_0 = initial_accumulator_value
        u_t = g_t / sqrt(s_t + eps)

    What is 0/0 is 0.

    Args:
      initial_accumulator_value: s_0.
      eps: added under the root.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Duchi, Hazan & Singer 2011, Adaptive Subgradient Methods for Online Learning and Stochastic
      Optimization; the arguments are those of `optax.scale_by_rss`.
    """

    def step(g: Signal) -> Signal:
        s = square(g) >> running_sum(start=initial_accumulator_value, name="sum_of_squares")
        return divide_or_zero(g, sqrt(s + eps))

    return flow(step)


@method(
    "Duchi, Hazan & Singer 2011, Adaptive Subgradient Methods for Online Learning and Stochastic "
    "Optimization",
    tags=("sums",),
    learning_rate=0.05,
)
@transformation()
def adagrad(
    learning_rate: optax.ScalarOrSchedule,
    initial_accumulator_value: NonNegativeConstant = 0.1,
    eps: NonNegative = 1e-7,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaGrad, with the arguments of `optax.adagrad`; the rule is that of `scale_by_rss`.

    Args:
      learning_rate: number or schedule.
      initial_accumulator_value, eps: see `scale_by_rss`.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; its state is the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adagrad
      >>> opt = adagrad(1.0, initial_accumulator_value=0.0, eps=0.0)
      >>> g = jnp.array([3.0, -2.0])
      >>> _, state = opt.update(g, opt.init(g))
      >>> print(opt.update(4 / 3 * g, state)[0].round(3))
      [-0.8  0.8]
    """
    return chain(
        scale_by_rss(initial_accumulator_value=initial_accumulator_value, eps=eps),
        scale_by_learning_rate(learning_rate),
    )

"""MADGRAD."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    cbrt,
    chain,
    decay_weights,
    divide,
    flow,
    initial_params,
    running_sum,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
)


@transformation()
def scale_by_madgrad(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    eps: NonNegative = 1e-6,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Dual averaging under the cube root of the summed squares, with iterate averaging.

        l_t = (r + eps) sqrt(t)
        s_t = s_{t-1} + l_t g_t
        v_t = v_{t-1} + l_t g_t^2
        z_{t+1} = x_0 - s_t / (cbrt(v_t) + eps)
        x_{t+1} = momentum x_t + (1 - momentum) z_{t+1}

    x_0 are the params that `init` was given. The result is a finished update, rate and sign
    included. An entry that never had a gradient rests, whatever eps.

    Args:
      learning_rate: r, number or schedule.
      momentum: share of the iterate that is kept, in [0, 1).
      eps: added to the rate and to the root.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Defazio & Jelassi 2022, Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged
      Gradient Method for Stochastic Optimization (arXiv 2101.11075), and the authors' package
      madgrad, from which the eps in the rate comes. `optax.contrib.scale_by_madgrad` is the same.
    """

    def step(g: Signal, params: Signal) -> Signal:
        weight = (scheduled(learning_rate) + scheduled(eps)) * sqrt(step_count())
        s = weight * g >> running_sum(name="grad_sum")
        v = weight * square(g) >> running_sum(name="grad_sum_sq")
        z = initial_params() - divide(s, cbrt(v) + eps, eps)
        return (1 - scheduled(momentum)) * (z - params)

    return flow(step)


@method(
    "Defazio & Jelassi 2022, Adaptivity without Compromise: A Momentumized, Adaptive, Dual "
    "Averaged Gradient Method for Stochastic Optimization",
    arxiv="2101.11075",
    tags=("sums", "momentum"),
    learning_rate=0.03,
)
@transformation()
def madgrad(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-6,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """MADGRAD, with the arguments of `optax.contrib.madgrad`; see `scale_by_madgrad`.

    Args:
      learning_rate, momentum, eps: see `scale_by_madgrad`.
      weight_decay: L2 regularisation, added to the gradient; less than for Adam, often none.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: see `scale_by_madgrad`.

    Returns:
      The optimizer; it needs `params`, and its state is three times their size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import madgrad
      >>> opt = madgrad(1.0, momentum=0.0, eps=0.0)
      >>> x = jnp.array([8.0, -1.0])
      >>> print(opt.update(x, opt.init(x), x)[0].round(3))
      [-2.  1.]
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        scale_by_madgrad(learning_rate=learning_rate, momentum=momentum, eps=eps),
    )

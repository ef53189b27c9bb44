"""D-Adaptation of SGD."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Mask,
    NonNegative,
    Positive,
    PositiveConstant,
    Signal,
    decay_weights,
    delay,
    divide_or_zero,
    flow,
    global_dot,
    global_norm,
    initial_params,
    maximum,
    minimum,
    running_sum,
    scheduled,
    tap,
    transformation,
    where,
)

UNLIKE = 1000.0
"""How many times as long as the first one a gradient is of which the first says nothing."""


@method(
    "Defazio & Mishchenko 2023, Learning-Rate-Free Learning by D-Adaptation",
    arxiv="2301.07733",
    learning_rate=1.0,
    tags=("own-rate", "momentum"),
    small_model={"estim_lr0": 1e-2},
)
@transformation()
def dadapt_sgd(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    momentum: Decay = 0.0,
    estim_lr0: PositiveConstant = 1e-6,
    growth_rate: Positive | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """SGD that estimates its learning rate by a lower bound of the distance to the solution.

        r_t = d_t learning_rate / |g_1|,    or over |g_t|, where that is above 1000 |g_1|
        n_t = n_{t-1} + r_t <g_t, s_{t-1}>
        s_t = s_{t-1} + r_t g_t
        d_{t+1} = max(d_t, min(2 n_t / |s_t|, growth_rate d_t)),    d_1 = estim_lr0
        z_{t+1} = x_0 - s_t
        x_{t+1} = momentum x_t + (1 - momentum) z_{t+1}

    with products and norms over all leaves, and x_0 the params that `init` was given. The tap
    "estim_lr" is d_{t+1}. While there was no gradient, the params rest. The paper wants a bound of
    all norms in place of |g_1|; where one is a thousand times as large, and the first gradient was
    next to none or this one is a spike, its own norm keeps the step as long as d.

    Args:
      learning_rate: a multiple of the estimate: 1, or a schedule that ends at 0.
      momentum: share of the iterate that is kept, in [0, 1).
      estim_lr0: d_1, far below any good rate.
      growth_rate: by how much d grows in one step at most; default without bound.
      weight_decay: L2 regularisation, added to g but in |g_1|.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; it needs `params`, and its state is twice their size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import dadapt_sgd
      >>> opt = dadapt_sgd(estim_lr0=0.5)
      >>> g = jnp.array([3.0, -4.0])
      >>> print(opt.update(g, opt.init(g), g)[0].round(3))
      [-0.3  0.4]

    References:
      Defazio & Mishchenko 2023, Learning-Rate-Free Learning by D-Adaptation (arXiv 2301.07733), and
      the authors' package dadaptation, in which the first norm leaves the decay out.
    """

    def step(g: Signal, params: Signal) -> Signal:
        d = delay(1.0 * estim_lr0, name="estim_lr")
        first_norm = delay(0.0, name="first_norm")
        now = global_norm(g)
        g0 = first_norm << where(first_norm == 0, now, first_norm)
        bound = where(now / UNLIKE > g0, now, g0)
        rate = divide_or_zero(d * scheduled(learning_rate), bound)
        decayed = g >> decay_weights(weight_decay, mask=mask)
        past = delay(g, name="grad_sum")
        n = rate * global_dot(decayed, past) >> running_sum(name="numerator")
        s = past << past + rate * decayed
        estimate = divide_or_zero(2 * n, global_norm(s))
        bounded = estimate if growth_rate is None else minimum(estimate, growth_rate * d)
        tap("estim_lr", d << maximum(d, bounded))
        return (1 - scheduled(momentum)) * (initial_params() - s - params)

    return flow(step)

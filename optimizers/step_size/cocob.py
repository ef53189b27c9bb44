"""COCOB."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Mask,
    NonNegative,
    NonNegativeConstant,
    Positive,
    Signal,
    chain,
    decay_weights,
    delay,
    divide_or_zero,
    flow,
    initial_params,
    maximum,
    running_sum,
    scale_by_learning_rate,
    transformation,
)


@transformation()
def scale_by_cocob(alpha: Positive = 100.0, eps: NonNegativeConstant = 1e-8) -> Flow:
    """Bets on the sign of every coordinate's gradients, and steps by what has been won.

        L_t = max(L_{t-1}, |g_t|),    L_0 = eps
        G_t = G_{t-1} + |g_t|
        R_t = max(R_{t-1} - g_t (x_t - x_0), 0)
        C_t = C_{t-1} - g_t
        x_{t+1} = x_0 + C_t (L_t + R_t) / (L_t max(G_t + L_t, alpha L_t))

    entry by entry, with x_0 the params that `init` was given. The result is a finished update: no
    rate, no sign is missing.

    Args:
      alpha: holds back the first bets: an entry moves by 1 / alpha at first.
      eps: L_0.

    References:
      Orabona & Tommasi 2017, Training Deep Networks without Learning Rates Through Coin Betting
      (arXiv 1705.07795), Algorithm 2; the arguments are those of `optax.contrib.scale_by_cocob`.
    """

    def step(g: Signal, params: Signal) -> Signal:
        x0 = initial_params()
        scale, reward = delay(g, eps, name="scale"), delay(g, name="reward")
        L = scale << maximum(scale, abs(g))
        G = abs(g) >> running_sum(name="subgradients")
        R = reward << maximum(reward - g * (params - x0), 0.0)
        C = -g >> running_sum(name="cumulative_gradients")
        # each over L first: the products need not be numbers of the format
        bet = divide_or_zero(C, L) / maximum(1 + divide_or_zero(G, L), alpha)
        return x0 + bet * (1 + divide_or_zero(R, L)) - params

    return flow(step)


@method(
    "Orabona & Tommasi 2017, Training Deep Networks without Learning Rates Through Coin Betting",
    arxiv="1705.07795",
    learning_rate=1.0,
    tags=("own-rate",),
    small_model={"alpha": 20.0},
)
@transformation()
def cocob(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    alpha: Positive = 100.0,
    eps: NonNegativeConstant = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """COCOB, with the arguments of `optax.contrib.cocob`; the rule is that of `scale_by_cocob`.

    Args:
      learning_rate: multiplies the gradients, by whose scale COCOB does not change but where it
        varies, as a schedule.
      alpha, eps: see `scale_by_cocob`.
      weight_decay: L2 regularisation, added to the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; it needs `params`, and its state is five times their size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import cocob
      >>> opt = cocob(alpha=10.0)
      >>> g = jnp.array([3.0, -2.0])
      >>> print(opt.update(g, opt.init(g), g)[0].round(3))
      [-0.1  0.1]
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha=alpha, eps=eps),
    )

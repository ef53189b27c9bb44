"""Lookahead."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import Flow, Fraction, Period, Signal, flow, step_count, transformation
from ...transforms.accumulate import back_to_slow_weights, pull_back_momentum

Pullback = Literal["none", "reset", "pullback"]


@method(
    "Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back",
    arxiv="1907.08610",
    tags=("evaluation-weights",),
)
@transformation()
def lookahead(
    inner: optax.GradientTransformation,
    sync_period: Period = 5,
    slow_step_size: Fraction = 0.8,
    pullback_momentum: Pullback = "none",
) -> Flow:
    """Goes k steps with any optimizer, then back to a point on the way.

        x' = x_t + inner update
        t mod k = 0:   slow <- slow + alpha (x' - slow),   x_{t+1} = slow
        otherwise:     x_{t+1} = x'

    The inner optimizer sees consecutive gradients and counts its steps through. Between
    synchronisations `eval_params(state, params)` gives the slow weights.

    Args:
      inner: any optimizer. This wrapper is the outermost transformation: decay or scaling after it
        would break its bookkeeping.
      sync_period: k.
      slow_step_size: alpha, the share of the way that is kept; 1 is the inner optimizer itself.
      pullback_momentum: what becomes of the inner momentum at a synchronisation: "none" leaves it,
        "reset" sets it to zero, "pullback" interpolates it like the weights, with what it was after
        the last synchronisation. Count and second moments stay.

    Returns:
      The wrapped optimizer; it needs `params`, and its state is one more copy of them ("pullback":
      and of the momentum).

    Raises:
      ValueError: for a hyper-parameter out of range, or an inner optimizer without momentum whose
        momentum is to be pulled back.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import lookahead, sgd
      >>> opt = lookahead(sgd(1.0), sync_period=1, slow_step_size=0.5)
      >>> x = jnp.array([4.0])
      >>> opt.update(x, opt.init(x), x)[0].tolist()
      [-2.0]

    References:
      Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back (arXiv 1907.08610). In
      the authors' code the cached momentum of "pullback" becomes the live one after the first
      synchronisation, so that it shrinks instead; we interpolate.
    """

    def step(g: Signal, params: Signal) -> Signal:
        sync = step_count() % sync_period == 0
        if pullback_momentum == "none":
            u = g >> inner
        else:
            weight = slow_step_size if pullback_momentum == "pullback" else None
            u = g >> pull_back_momentum(sync, inner, weight)
        return back_to_slow_weights(u, params, sync, slow_step_size)

    return flow(step)

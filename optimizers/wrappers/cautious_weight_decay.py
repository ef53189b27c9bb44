"""Cautious weight decay."""

import optax

from ...registry import method
from ...transforms import Flow, Mask, NonNegative, Signal, decay_weights, flow, transformation


@method(
    "Chen et al. 2025, Cautious Weight Decay",
    arxiv="2510.12402",
    tags=("cautious", "decoupled-decay"),
)
@transformation()
def cautious_weight_decay(
    inner: optax.GradientTransformation,
    weight_decay: NonNegative = 1e-2,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    mask: Mask | None = None,
) -> Flow:
    """Decays the weights only where the optimizer's step already takes them towards zero.

        x_{t+1} = x_t + u_t - learning_rate weight_decay 1[u_t x_t <= 0] x_t

    with u_t the update of the inner optimizer, entry by entry: no entry is decayed against the
    direction in which the loss wants it.

    Args:
      inner: any optimizer, without weight decay of its own.
      weight_decay: the decay; number or schedule.
      learning_rate: the rate of `inner`, by which the decay is multiplied; 1 for a decay of its own
        size.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The wrapped optimizer; it needs `params`, and its state is the inner one.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import cautious_weight_decay, sgd
      >>> opt = cautious_weight_decay(sgd(0.5), weight_decay=0.25)
      >>> x, g = jnp.array([4.0, 4.0]), jnp.array([2.0, -2.0])
      >>> print(opt.update(g, opt.init(x), x)[0])
      [-2.  1.]

    References:
      Chen et al. 2025, Cautious Weight Decay (arXiv 2510.12402): Algorithm 1. Written after the
      paper; no official code was examined.
    """

    def step(g: Signal) -> Signal:
        decay = decay_weights(weight_decay, "cautious", learning_rate=learning_rate, mask=mask)
        return g >> inner >> decay

    return flow(step)

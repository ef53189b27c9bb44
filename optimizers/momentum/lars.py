"""LARS."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    chain,
    decay_weights,
    handed_on,
    masked,
    scale_by_learning_rate,
    scale_by_trust_ratio,
    trace,
    transformation,
)


@method(
    "You, Gitman & Ginsburg 2017, Large Batch Training of Convolutional Networks",
    arxiv="1708.03888",
    tags=("momentum", "layerwise", "large-batch", "low-memory"),
    learning_rate=1.0,
)
@transformation(synonyms={"mask": "weight_decay_mask"})
def lars(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: NonNegative = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """LARS: momentum SGD whose layers move in proportion to the size of their weights.

        u_t = g_t + weight_decay x_{t-1}
        u_t <- u_t trust_coefficient |x_{t-1}| / (|u_t| + eps)     (ratio 1 where a norm is 0)
        b_t = momentum b_{t-1} - eta_t u_t
        x_t = x_{t-1} + b_t                                        (nesterov: momentum b_t - eta u)

    With the signature and results of `optax.lars`. The rate is inside the momentum, so a schedule
    acts with delay.

    Args:
      learning_rate: number or schedule; of order 1 to 30 with the default trust coefficient.
      weight_decay: L2, part of the norm in the trust ratio.
      weight_decay_mask: leaves that decay: a boolean, a tree of booleans or a function of params.
      trust_coefficient: multiplier of the trust ratio.
      eps: added to the norm of the update.
      trust_ratio_mask: leaves with a trust ratio; recipes leave out biases and normalisation
        parameters, which would take a full step at rate `learning_rate` while they are zero.
      momentum: decay of the momentum.
      nesterov: Nesterov momentum.
      mu_dtype: storage of the first moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import lars
      >>> opt = lars(10.0)
      >>> params = jnp.array([3.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.03, 0.04]

    References:
      You, Gitman & Ginsburg 2017 (arXiv 1708.03888). The paper divides by |g| + weight_decay |x|;
      like optax we divide by the norm of the sum.
    """
    return chain(
        decay_weights(weight_decay, mask=None if weight_decay_mask is True else weight_decay_mask),
        masked(handed_on(scale_by_trust_ratio), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )

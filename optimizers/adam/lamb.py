"""LAMB."""

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
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_trust_ratio,
    transformation,
)


@method(
    "You et al. 2020, Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    arxiv="1904.00962",
    tags=("adam", "layerwise", "large-batch", "decoupled-decay"),
    learning_rate=1e-2,
)
@transformation()
def lamb(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """LAMB: Adam whose layers move in proportion to the size of their weights.

        u_t = adam(g_t) + weight_decay x_{t-1}
        x_t = x_{t-1} - eta_t u_t |x_{t-1}| / |u_t|        (leaf by leaf; ratio 1 where a norm is 0)

    With the signature and results of `optax.lamb`. Large-batch recipes put
    `clip_by_global_norm(1.0)` in front, and keep biases and normalisation parameters out of the
    decay (`mask`) and of the trust ratio (`optax.partition`).

    Args:
      learning_rate: number or schedule; the relative step of each leaf.
      b1, b2, eps, eps_root: see `scale_by_adam`.
      weight_decay: added to the direction before the trust ratio.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import lamb
      >>> opt = lamb(0.1)
      >>> params = jnp.array([3.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.354, 0.354]

    References:
      You et al. 2020 (arXiv 1904.00962). The paper bounds the norm of the weights in theory; like
      the authors' code and optax we do not.
    """
    return chain(
        handed_on(scale_by_adam),
        decay_weights(weight_decay, mask=mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )

"""Lion."""

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
    scale_by_learning_rate,
    transformation,
)
from ...transforms.directions import scale_by_lion


@method(
    "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms",
    arxiv="2302.06675",
    tags=("sign", "momentum", "decoupled-decay", "low-memory"),
    learning_rate=3e-4,
)
@transformation()
def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 1e-3,
    mask: Mask | None = None,
) -> Flow:
    """Lion: sign momentum with decoupled weight decay; the rule is that of `scale_by_lion`.

    Args:
      learning_rate: number or schedule; 3 to 10 times smaller than AdamW's.
      b1, b2, mu_dtype: see `scale_by_lion`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import lion
      >>> opt = lion(0.5, weight_decay=0.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> opt.update(2 * params, opt.init(params), params)[0].tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_lion),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

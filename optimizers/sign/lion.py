"""Lion."""

from typing import Any

import optax

from ...catalogue import method
from ...transforms import (
    Flow,
    add_decayed_weights,
    chain,
    flow,
    interpolated_momentum,
    named,
    scale_by_learning_rate,
    sign,
    transformation,
)


@transformation()
def scale_by_lion(b1: Any = 0.9, b2: Any = 0.99, mu_dtype: Any = None) -> Flow:
    """The sign of a momentum that looks further back than the direction it gives.

        c_t = b1 m_{t-1} + (1 - b1) g_t
        u_t = sign(c_t)
        m_t = b2 m_{t-1} + (1 - b2) g_t

    Args:
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: storage dtype of m.

    References:
      Chen et al. 2023, Symbolic Discovery of Optimization Algorithms (arXiv 2302.06675). Paper,
      google/automl and optax agree.
    """

    return flow(lambda g: sign(g >> named("mu", interpolated_momentum(b1, b2, dtype=mu_dtype))))


@method(
    "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms",
    arxiv="2302.06675",
    learning_rate=3e-4,
)
@transformation()
def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.99,
    mu_dtype: Any = None,
    weight_decay: Any = 1e-3,
    mask: Any = None,
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
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

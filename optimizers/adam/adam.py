"""Adam."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    chain,
    handed_on,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)


@method(
    "Kingma & Ba 2015, Adam: A Method for Stochastic Optimization",
    arxiv="1412.6980",
    tags=("adam",),
)
@transformation()
def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam, with the signature and results of `optax.adam`; the rule is that of `scale_by_adam`.

    L2 regularisation goes in front, `chain(decay_weights(l2), adam(...))`; decoupled decay is
    `adamw`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, eps_root, mu_dtype, nesterov: see `scale_by_adam`.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adam
      >>> opt = adam(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params))
      >>> updates.round(3).tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_adam),
        scale_by_learning_rate(learning_rate),
    )

"""AMSBound."""

import optax

from ...registry import method
from ...transforms import Decay, DType, Flow, Mask, NonNegative, Positive, transformation
from .adabound import ARXIV, PAPER, bounded


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("adam", "bounded"),
)
@transformation()
def amsbound(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    final_learning_rate: Positive = 0.1,
    gamma: Positive = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled: bool = False,
    mask: Mask | None = None,
    *,
    base_learning_rate: Positive | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaBound with the running maximum of the raw second moment.

    The rule is that of `scale_by_adabound(..., amsbound=True)`; bias correction comes after the
    maximum.

    Args:
      learning_rate, final_learning_rate, gamma, b1, b2, eps, base_learning_rate: see
        `scale_by_adabound`.
      weight_decay: added to the gradient as L2 or, if `decoupled`, taken off the params.
      decoupled: decay by `weight_decay` times the params, whatever the rate.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import amsbound
      >>> opt = amsbound(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.5]
    """
    return bounded(
        weight_decay,
        decoupled,
        mask,
        *(learning_rate, final_learning_rate, gamma, b1, b2, eps),
        amsbound=True,
        base_learning_rate=base_learning_rate,
    )

"""AdamW."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    chain,
    decay_weights,
    handed_on,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.step_size import DecayForm


@method(
    "Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization",
    arxiv="1711.05101",
    tags=("adam", "decoupled-decay", "nesterov"),
)
@transformation()
def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    decouple_lr: bool = False,
    base_learning_rate: Positive | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with decoupled weight decay; the direction u_t is that of `scale_by_adam`.

        x_t = x_{t-1} - r_t u_t - r_t w x_{t-1}
        x_t = x_{t-1} - r_t u_t - (r_t / r_1) w x_{t-1}        if decouple_lr

    Args:
      learning_rate: r, number or schedule.
      b1, b2, eps, eps_root, mu_dtype, nesterov: see `scale_by_adam`.
      weight_decay: w.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      decouple_lr: the decay follows the shape of the schedule, but not the base rate.
      base_learning_rate: r_1 for `decouple_lr`; default the first value of the schedule, which is
        then not to be 0.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, and its state is twice their size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adamw
      >>> opt = adamw(0.5, weight_decay=0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [f"{u:.2f}" for u in updates]
      ['-0.75', '1.50']

    References:
      Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization (arXiv 1711.05101). The paper
      and the authors' Lua code decay as with `decouple_lr`; PyTorch and Optax, and what later
      papers call AdamW, as without. The Lua code adds eps before bias correction; we follow the
      paper, PyTorch and Optax.
    """
    form: DecayForm = "relative" if decouple_lr else "decoupled"
    return chain(
        handed_on(scale_by_adam),
        scale_by_learning_rate(learning_rate),
        decay_weights(
            weight_decay, form, learning_rate=learning_rate, mask=mask, base_rate=base_learning_rate
        ),
    )

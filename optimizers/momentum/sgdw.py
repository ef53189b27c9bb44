"""SGDW."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    Positive,
    chain,
    decay_weights,
    handed_on,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.step_size import DecayForm
from .sgd import scale_by_sgd


@method(
    "Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization",
    arxiv="1711.05101",
    tags=("momentum", "nesterov", "decoupled-decay", "low-memory"),
    learning_rate=0.05,
)
@transformation(synonyms={"accumulator_dtype": "mu_dtype"})
def sgdw(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    dampening: Number = 0.0,
    weight_decay: NonNegative = 1e-4,
    mask: Mask | None = None,
    decouple_lr: bool = False,
    mu_dtype: DType | None = None,
    *,
    base_learning_rate: Positive | None = None,
) -> Flow:
    """Heavy-ball SGD with decoupled weight decay; the direction u_t is that of `scale_by_sgd`.

        x_t = x_{t-1} - r_t u_t - r_t w x_{t-1}
        x_t = x_{t-1} - r_t u_t - (r_t / r_1) w x_{t-1}        if decouple_lr

    The decay never enters the buffer, and uses the params before the step.

    Args:
      learning_rate: r, number or schedule.
      momentum, nesterov, dampening, mu_dtype: see `scale_by_sgd`. Nesterov is meant for
        momentum > 0 without dampening.
      weight_decay: w.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      decouple_lr: the decay follows the shape of the schedule, but not the base rate.
      base_learning_rate: r_1 for `decouple_lr`; default the first value of the schedule, which is
        then not to be 0.

    Returns:
      The optimizer; it needs `params`, and its state is their size, or nothing without momentum.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgdw
      >>> opt = sgdw(0.5, weight_decay=0.1)
      >>> params = jnp.array([1.0, -4.0])
      >>> print(opt.update(params, opt.init(params), params)[0].round(3))
      [-0.55  2.2 ]

    References:
      Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization (arXiv 1711.05101). The paper
      has the rate inside the buffer, the authors' Lua code outside; equal for a constant rate. We
      follow the code, except for its default dampening, which is the momentum.
    """
    form: DecayForm = "relative" if decouple_lr else "decoupled"
    return chain(
        handed_on(scale_by_sgd, momentum_form="heavy_ball"),
        scale_by_learning_rate(learning_rate),
        decay_weights(
            weight_decay, form, learning_rate=learning_rate, mask=mask, base_rate=base_learning_rate
        ),
    )

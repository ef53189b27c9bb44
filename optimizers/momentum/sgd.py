"""Stochastic gradient descent with momentum."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    Signal,
    chain,
    decay_weights,
    flow,
    handed_on,
    named,
    scale_by_learning_rate,
    transformation,
)
from ...transforms import momentum as momentum_in_form
from ...transforms.accumulate import MomentumForm


@transformation()
def scale_by_sgd(
    momentum: Decay | None = 0.0,
    nesterov: bool = False,
    momentum_form: MomentumForm = "heavy_ball",
    dampening: Number = 0.0,
    mu_dtype: DType | None = None,
) -> Flow:
    """The gradient, or its momentum in one of the three forms of `transforms.momentum`.

        heavy_ball   b_t = momentum b_{t-1} + (1 - dampening) g_t,  b_1 = g_1
        ema          m_t = momentum m_{t-1} + (1 - momentum) g_t
        debiased     m_t / (1 - momentum^t)

    The learning rate is outside the buffer: a drop of the rate acts at once.

    Args:
      momentum: decay of the buffer, in [0, 1); 0 or None keeps none.
      nesterov: look one step ahead along the momentum.
      momentum_form: one of the above.
      dampening: how much of a gradient is left out of a heavy ball; never of the first.
      mu_dtype: storage dtype of the buffer; default at least float32.

    References:
      Robbins & Monro 1951; Polyak 1964; Sutskever et al. 2013. Heavy ball and dampening are those
      of PyTorch, without dampening also those of Optax.
    """

    def step(g: Signal) -> Signal:
        form = momentum_in_form(
            momentum, momentum_form, nesterov, dampening=dampening, dtype=mu_dtype
        )
        return g >> named("trace", form)

    return flow(step)


@method(
    "Robbins & Monro 1951, A Stochastic Approximation Method",
    tags=("momentum", "nesterov", "low-memory"),
    learning_rate=0.1,
    small_model={"momentum": 0.9},
)
@transformation(synonyms={"accumulator_dtype": "mu_dtype"})
def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay | None = 0.0,
    nesterov: bool = False,
    momentum_form: MomentumForm = "heavy_ball",
    dampening: Number = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """Stochastic gradient descent; momentum is that of `scale_by_sgd`.

    Args:
      learning_rate: number or schedule.
      momentum, nesterov, momentum_form, dampening, mu_dtype: see `scale_by_sgd`.
      weight_decay: L2 regularisation, added to the gradient in front of the buffer as in PyTorch;
        decoupled decay is `sgdw`.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is the size of the params, or nothing without momentum.

    Raises:
      ValueError: for a hyper-parameter out of range, or an unknown form.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgd
      >>> opt = sgd(0.5, momentum=0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> state = opt.init(params)
      >>> _, state = opt.update(params, state)
      >>> opt.update(params, state)[0].tolist()
      [-0.75, 3.0]
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        handed_on(scale_by_sgd),
        scale_by_learning_rate(learning_rate),
    )

"""diffGrad."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Signal,
    chain,
    debias,
    debiased_root,
    decay_weights,
    difference,
    divide,
    ema,
    flow,
    handed_on,
    named,
    scale_by_learning_rate,
    sigmoid,
    square,
    transformation,
)


@transformation()
def scale_by_diffgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with friction where the gradient hardly changes.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        xi_t = sigmoid(|g_t - g_{t-1}|),    g_0 = 0
        u_t = sqrt(1 - b2^t) / (1 - b1^t) * xi_t m_t / (sqrt(v_t) + eps)

    The friction, in [1/2, 1), multiplies the momentum but is not stored in it. It is not invariant
    to the scale of the loss: for large gradients this is Adam, for tiny ones Adam at half the rate.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to sqrt(v) before v is debiased.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Dubey et al. 2019, diffGrad: An Optimization Method for Convolutional Neural Networks (arXiv
      1909.11015), and shivram1987/diffGrad, whose corrected second version we follow: its first
      compares the gradient with itself, the paper adds eps after the correction.
    """

    def step(g: Signal) -> Signal:
        friction = sigmoid(abs(g >> named("previous_grad", difference())))
        m = g >> named("mu", ema(b1))
        v = square(g) >> named("nu", ema(b2))
        root = debiased_root(v, b2, eps, eps_before_correction=True)
        return divide(friction * (m >> debias(b1)), root, eps)

    return flow(step)


@method(
    "Dubey et al. 2019, diffGrad: An Optimization Method for Convolutional Neural Networks",
    arxiv="1909.11015",
    tags=("adam",),
)
@transformation()
def diffgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """diffGrad; the rule is that of `scale_by_diffgrad`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps: see `scale_by_diffgrad`.
      weight_decay: L2, added to the gradient.
      mu_dtype, nu_dtype: see `scale_by_diffgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import diffgrad
      >>> opt = diffgrad(1.0)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.731, 0.982]
    """
    return chain(
        decay_weights(weight_decay),
        handed_on(scale_by_diffgrad),
        scale_by_learning_rate(learning_rate),
    )

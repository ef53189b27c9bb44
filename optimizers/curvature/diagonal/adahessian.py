"""AdaHessian."""

import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Period,
    Sampler,
    Signal,
    Size,
    absolute,
    chain,
    debias,
    decay_weights,
    divide,
    ema,
    every,
    flow,
    handed_on,
    hutchinson,
    named,
    scale_by_learning_rate,
    sqrt,
    square,
    transformation,
)
from ....transforms.notation import ByDimension
from .block_average import block_average


@transformation()
def scale_by_adahessian(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-4,
    hessian_power: NonNegative = 1.0,
    update_interval: Period = 1,
    num_samples: Size = 1,
    average_axes: ByDimension | None = None,
    block_sizes: ByDimension | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose second moment is that of the Hessian diagonal.

        d_t = |mean over samples of z * (H z)|, averaged over blocks      (each k-th step)
        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = b2 v_{t-1} + (1 - b2) d_t^2      if d_t is new, else v_{t-1}
        u_t = m_t / (1 - b1^t) / ((v_t / (1 - b2^t))^(hessian_power / 2) + eps)

    Where the curvature vanishes the step is m / eps: eps is not a mere guard. A non-finite entry
    of the curvature counts as the largest finite one of its leaf.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the curvature, in [0, 1); its correction counts steps, not refreshes.
      eps: added to the denominator.
      hessian_power: 1 divides by the curvature, 0 leaves the momentum.
      update_interval: k; the curvature is estimated at the steps 1, k + 1, ...
      num_samples: Rademacher probes per estimate.
      average_axes, block_sizes: blocks over which |H z| is averaged; see `block_average`. The
        paper's blocks for Flax's kernels are `{2: (0,), 3: (0,), 4: (0, 1)}`.
      key: seed or key of the probes.
      sampler: `(key, count, params) -> tree` of probes, entries +1 and -1; count is 0 at the first
        step.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Yao et al. 2021, ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning (arXiv
      2006.00719). The paper averages z * (H z) over a block, the official code |H z|: we follow
      the code. It refreshes at every step.
    """
    squared_curvature = flow(
        lambda d: square(absolute(d) >> block_average(average_axes, block_sizes))
    )
    estimate = chain(hutchinson(key, num_samples, sampler=sampler), squared_curvature, ema(b2))

    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1)) >> debias(b1)
        v = g >> named("nu", every(update_interval, estimate)) >> debias(b2)
        return divide(m, sqrt(v) ** hessian_power + eps, eps)

    return flow(step)


@method(
    "Yao et al. 2021, ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
    arxiv="2006.00719",
    tags=("curvature", "closure", "noise"),
    learning_rate=0.15,
)
@transformation()
def adahessian(
    learning_rate: optax.ScalarOrSchedule = 0.15,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-4,
    weight_decay: NonNegative = 0.0,
    hessian_power: NonNegative = 1.0,
    update_interval: Period = 1,
    num_samples: Size = 1,
    average_axes: ByDimension | None = None,
    block_sizes: ByDimension | None = None,
    key: Key = 0,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaHessian with decoupled weight decay; the rule is that of `scale_by_adahessian`.

    Needs `value_fn`, the loss of the batch on which the gradient was taken, or `hessian_diag`.

    Args:
      learning_rate: number or schedule; it also multiplies the decay.
      b1, b2, eps: see `scale_by_adahessian`.
      weight_decay: decoupled decay, of the params before the step.
      hessian_power, update_interval, num_samples, average_axes, block_sizes, key, sampler: see
        `scale_by_adahessian`.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: see `scale_by_adahessian`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import adahessian
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 10.0]) * x**2) / 2
      >>> params, opt = jnp.array([1.0, 1.0]), adahessian(1.0, eps=0.0)
      >>> u, _ = opt.update(jax.grad(loss)(params), opt.init(params), params, value_fn=loss)
      >>> u.round(4).tolist()
      [-1.0, -1.0]
    """
    return chain(
        handed_on(scale_by_adahessian),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

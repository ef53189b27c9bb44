"""AdamP."""

import optax

from ...registry import method
from ...transforms import (
    Axis,
    Decay,
    DType,
    Flow,
    Fraction,
    Mask,
    NonNegative,
    Signal,
    chain,
    debias,
    debiased_root,
    decay_weights,
    divide,
    ema,
    flow,
    handed_on,
    momentum,
    named,
    scale_by_learning_rate,
    scheduled,
    square,
    transformation,
    where,
)
from ...transforms.shape import project_out_radial


@transformation()
def scale_by_adamp(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    delta: NonNegative = 0.1,
    wd_ratio: Fraction = 0.1,
    nesterov: bool = False,
    channel_axis: Axis = -1,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Adam without the part of its step that only lengthens scale-invariant weights.

    .. math::
        m_t &= b_1 m_{t-1} + (1 - b_1) g_t, \quad v_t = b_2 v_{t-1} + (1 - b_2) g_t^2 \\
        p_t &= m_t \Big/ \Bigl(\sqrt{v_t / (1 - b_2^t)} + \epsilon\Bigr), \quad
        u_t, r_t = \mathrm{project}(\theta_t, g_t, p_t) \\
        \Delta_t &= u_t / (1 - b_1^t) + \lambda r_t \theta_t

    The projection, and the test on :math:`g_t` that decides about it leaf by leaf, are those of
    `project_out_radial`; vectors and scalars are never projected. Where it happens,
    :math:`r = ` `wd_ratio`, else 1. With Nesterov's momentum the numerator is
    :math:`b_1 m_t + (1 - b_1) g_t`.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the debiased root; also guards norms in the projection.
      weight_decay: lambda; number or schedule.
      delta: threshold of the cosine test; 0 never projects.
      wd_ratio: share of the decay that projected leaves keep, in [0, 1].
      nesterov: look ahead along the momentum.
      channel_axis: axis of the output channels: -1 as in Flax kernels (the default); 0 in torch's
        layout, or the wrong rows are projected.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Heo et al. 2021, AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
      Weights (arXiv 2006.08217). The paper projects the momentum; we follow clovaai/AdamP, which
      projects after the division by the root.
    """

    def step(g: Signal, params: Signal) -> Signal:
        m = g >> named("mu", momentum(b1, "ema", nesterov))
        v = square(g) >> named("nu", ema(b2))
        p = divide(m, debiased_root(v, b2, eps), eps)
        u, projected = project_out_radial(params, g, p, delta, eps, channel_axis)
        decay = scheduled(weight_decay) * where(projected, wd_ratio, 1.0)
        return u >> debias(b1) >> decay_weights(decay, mask=mask)

    return flow(step)


@method(
    "Heo et al. 2021, AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant "
    "Weights",
    arxiv="2006.08217",
    tags=("adam", "orthogonal", "decoupled-decay", "nesterov"),
    learning_rate=1e-2,
)
@transformation()
def adamp(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    delta: NonNegative = 0.1,
    wd_ratio: Fraction = 0.1,
    nesterov: bool = False,
    channel_axis: Axis = -1,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdamP: Adam with a radial projection; the rule is that of `scale_by_adamp`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, weight_decay, delta, wd_ratio, nesterov, channel_axis, mask: see
        `scale_by_adamp`.
      mu_dtype, nu_dtype: see `scale_by_adamp`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adamp
      >>> opt = adamp(0.5, delta=10.0)
      >>> params = jnp.array([[1.0, 0.0]])
      >>> opt.update(jnp.array([[1.0, 1.0]]), opt.init(params), params)[0].round(3).tolist()
      [[-0.0, -0.5]]
    """
    return chain(
        handed_on(scale_by_adamp),
        scale_by_learning_rate(learning_rate),
    )

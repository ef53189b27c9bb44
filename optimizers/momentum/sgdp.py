"""SGDP."""

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
    decay_weights,
    delay,
    flow,
    handed_on,
    scale_by_learning_rate,
    scheduled,
    transformation,
    where,
)
from ...transforms.shape import project_out_radial


@transformation()
def scale_by_sgdp(
    momentum: Decay = 0.0,
    dampening: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    nesterov: bool = False,
    eps: NonNegative = 1e-8,
    delta: NonNegative = 0.1,
    wd_ratio: Fraction = 0.1,
    channel_axis: Axis = -1,
    project_buffer: bool = True,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Heavy ball without the part of its step that only lengthens scale-invariant weights.

    .. math::
        b_t &= \mu b_{t-1} + (1 - \delta_0) g_t, \qquad
        p_t = g_t + \mu b_t \text{ with Nesterov's momentum, else } b_t \\
        u_t, r_t &= \mathrm{project}(\theta_t, g_t, p_t), \qquad
        b_t \leftarrow u_t \text{ without Nesterov's momentum} \\
        \Delta_t &= u_t + \frac{\lambda r_t}{1 - \mu} \theta_t

    The projection is that of `project_out_radial`. Where it happens, :math:`r = ` `wd_ratio`, else
    1. The decay is divided by :math:`1 - \mu`, so that it is as strong as L2 in an SGD with
    momentum.

    Args:
      momentum: mu, in [0, 1).
      dampening: share of every gradient, the first too, that is left out of the buffer.
      weight_decay: lambda; number or schedule.
      nesterov: look ahead along the buffer.
      eps: guards norms in the projection.
      delta: threshold of the cosine test; 0 never projects.
      wd_ratio: share of the decay that projected leaves keep, in [0, 1].
      channel_axis: axis of the output channels: -1 as in Flax kernels (the default); 0 in torch's
        layout, or the wrong rows are projected.
      project_buffer: the buffer, too, is projected where Nesterov's momentum is off.
      mask: leaves that decay; default all.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Heo et al. 2021, AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
      Weights (arXiv 2006.08217). clovaai/AdamP projects in place, so that its buffer is projected
      as well; the paper projects the update alone (`project_buffer=False`).
    """

    def step(g: Signal, params: Signal) -> Signal:
        buffer = delay(g, name="trace")
        new = momentum * buffer + (1 - scheduled(dampening)) * g
        p = g + momentum * new if nesterov else new
        u, projected = project_out_radial(params, g, p, delta, eps, channel_axis)
        buffer << (u if project_buffer and not nesterov else new)
        decay = (
            scheduled(weight_decay) * where(projected, wd_ratio, 1.0) / (1 - scheduled(momentum))
        )
        return u >> decay_weights(decay, mask=mask)

    return flow(step)


@method(
    "Heo et al. 2021, AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant "
    "Weights",
    arxiv="2006.08217",
    tags=("momentum", "nesterov", "orthogonal", "decoupled-decay", "low-memory"),
    learning_rate=1e-2,
    small_model={"momentum": 0.9},
)
@transformation()
def sgdp(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.0,
    dampening: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    nesterov: bool = False,
    eps: NonNegative = 1e-8,
    delta: NonNegative = 0.1,
    wd_ratio: Fraction = 0.1,
    channel_axis: Axis = -1,
    project_buffer: bool = True,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """SGDP: SGD with momentum and a radial projection; the rule is that of `scale_by_sgdp`.

    Args:
      learning_rate: number or schedule.
      momentum, dampening, weight_decay, nesterov, eps, delta, wd_ratio, channel_axis,
        project_buffer, mask: see `scale_by_sgdp`.
      mu_dtype: see `scale_by_sgdp`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgdp
      >>> opt = sgdp(0.5, delta=10.0)
      >>> params = jnp.array([[1.0, 0.0]])
      >>> opt.update(jnp.array([[1.0, 1.0]]), opt.init(params), params)[0].tolist()
      [[-0.0, -0.5]]
    """
    return chain(
        handed_on(scale_by_sgdp),
        scale_by_learning_rate(learning_rate),
    )

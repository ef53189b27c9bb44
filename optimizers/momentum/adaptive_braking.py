"""Adaptive braking."""

import optax

from ...registry import method
from ...transforms import (
    Axis,
    Decay,
    DType,
    Flow,
    NonNegative,
    Number,
    Signal,
    chain,
    cosine_similarity,
    decay_weights,
    delay,
    flow,
    handed_on,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.shape import Granularity


@transformation()
def scale_by_braking(
    rho: Number = 2.0,
    granularity: Granularity = "tensor",
    momentum: Decay = 0.9,
    nesterov: bool = False,
    channel_axis: Axis = -1,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Heavy ball that turns gradients against its velocity up, and those along it down.

    .. math::
        a_t &= 1 - \rho \frac{\langle g_t, v_{t-1} \rangle}
            {\max(\|g_t\| \|v_{t-1}\|, \epsilon)} \\
        v_t &= \mu v_{t-1} + a_t g_t, \qquad
        u_t = a_t g_t + \mu v_t \text{ with Nesterov's momentum, else } v_t

    Args:
      rho: strength of the braking; 0 is plain momentum.
      granularity: what is compared: "tensor" each leaf, "filter" each output channel (leaves of
        one dimension or none as a whole), "global" the whole tree.
      momentum: mu, in [0, 1).
      nesterov: look ahead along the velocity.
      channel_axis: axis of the output channels: -1 as in Flax kernels (the default), 0 in torch's
        layout.
      eps: least product of the norms.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Venigalla et al. 2020, Adaptive Braking for Mitigating Gradient Delay (arXiv 2007.01397).
      There is no public code: the form of a_t and the granularities are read from the paper.
    """

    def step(g: Signal) -> Signal:
        velocity = delay(g, name="trace")
        braked = g * (1 - rho * cosine_similarity(g, velocity, eps, granularity, channel_axis))
        new = velocity << momentum * velocity + braked
        return braked + momentum * new if nesterov else new

    return flow(step)


@method(
    "Venigalla et al. 2020, Adaptive Braking for Mitigating Gradient Delay",
    arxiv="2007.01397",
    tags=("momentum", "layerwise", "large-batch", "low-memory"),
    learning_rate=1e-2,
    small_model={"rho": 0.5},
)
@transformation()
def adaptive_braking(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    rho: Number = 2.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    granularity: Granularity = "tensor",
    channel_axis: Axis = -1,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """SGD with adaptive braking; the rule is that of `scale_by_braking`.

    Args:
      learning_rate: number or schedule.
      momentum, rho, nesterov, granularity, channel_axis, eps: see `scale_by_braking`.
      weight_decay: L2, added to the gradient.
      mu_dtype: storage of the first moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adaptive_braking
      >>> opt = adaptive_braking(0.5)
      >>> params = jnp.array([1.0, -1.0])
      >>> opt.update(2 * params, opt.init(params), params)[0].tolist()
      [-1.0, 1.0]
    """
    return chain(
        decay_weights(weight_decay),
        handed_on(scale_by_braking),
        scale_by_learning_rate(learning_rate),
    )

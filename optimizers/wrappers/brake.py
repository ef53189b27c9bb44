"""Adaptive braking around any transformation."""

import optax

from ...registry import method
from ...transforms import (
    Axis,
    Flow,
    NonNegative,
    Number,
    Signal,
    cosine_similarity,
    delay,
    flow,
    transformation,
)
from ...transforms.shape import Granularity


@method(
    "Venigalla et al. 2020, Adaptive Braking for Mitigating Gradient Delay",
    arxiv="2007.01397",
    tags=("layerwise", "large-batch"),
    small_model={"rho": 0.5},
)
@transformation()
def brake(
    inner: optax.GradientTransformation,
    rho: Number = 2.0,
    granularity: Granularity = "tensor",
    channel_axis: Axis = -1,
    eps: NonNegative = 1e-8,
) -> Flow:
    r"""Turns gradients along an optimizer's last step down, and those against it up.

    .. math::
        g_t \leftarrow g_t \left(1 + \rho \frac{\langle g_t, \Delta_{t-1} \rangle}
            {\max(\|g_t\| \|\Delta_{t-1}\|, \epsilon)}\right)

    with Delta the inner update, which has the sign of a descent. Around SGD with momentum, and at
    a constant rate, this is `adaptive_braking`.

    Args:
      inner: any transformation whose output is the additive update.
      rho: strength of the braking.
      granularity: "tensor", "filter" or "global", see `scale_by_braking`.
      channel_axis: axis of the output channels for "filter".
      eps: least product of the norms.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import brake
      >>> opt = brake(optax.sgd(0.5), rho=1.0)
      >>> g = jnp.array([1.0, -1.0])
      >>> updates, state = opt.update(g, opt.init(g))
      >>> opt.update(-g, state)[0].round(3).tolist()
      [1.0, -1.0]

    References:
      Venigalla et al. 2020, Adaptive Braking for Mitigating Gradient Delay (arXiv 2007.01397).
    """

    def step(g: Signal) -> Signal:
        last = delay(g, name="last_update")
        along = cosine_similarity(g, -last, eps, granularity, channel_axis)
        return last << ((g * (1 - rho * along)) >> inner)

    return flow(step)

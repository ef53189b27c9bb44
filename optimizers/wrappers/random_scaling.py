"""Random scaling of updates."""

import optax

from ...registry import method
from ...transforms import Flow, Key, Sampler, Signal, flow, transformation
from ...transforms.trees import draw_scalar, exponential


@method(
    "Zhang & Cutkosky 2024, Random Scaling and Momentum for Non-smooth Non-convex Optimization",
    arxiv="2405.09742",
    tags=("noise",),
)
@transformation()
def random_scaling(
    inner: optax.GradientTransformation, key: Key = 0, sampler: Sampler | None = None
) -> Flow:
    r"""Multiplies every update of a transformation by one exponential draw of mean 1.

    .. math::
        \Delta_t \leftarrow s_t \Delta_t, \qquad s_t \sim \mathrm{Exp}(1)

    One scalar per step for the whole tree; what the inner transformation stores is not scaled. On
    several devices give all the same key.

    Args:
      inner: any transformation.
      key: seed, raw key or typed key; kept in the state.
      sampler: `(key, count, params) -> scalar` in place of the draw; count is 0 at the first step.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import random_scaling
      >>> opt = random_scaling(optax.sgd(0.5), sampler=lambda key, count, params: 3.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> opt.update(2 * params, opt.init(params), params)[0].tolist()
      [-3.0, 3.0]

    References:
      Zhang & Cutkosky 2024, Random Scaling and Momentum for Non-smooth Non-convex Optimization
      (arXiv 2405.09742).
    """

    def step(g: Signal) -> Signal:
        return (g >> inner) * draw_scalar(key, exponential, sampler)

    return flow(step)

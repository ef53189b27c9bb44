"""Clipping by the global norm."""

from ...registry import method
from ...transforms import (
    Flow,
    NonNegative,
    Positive,
    Signal,
    divide_or_zero,
    flow,
    minimum,
    norm_factors,
    scheduled,
    transformation,
)


@method(
    "Pascanu, Mikolov & Bengio 2013, On the difficulty of training Recurrent Neural Networks",
    arxiv="1211.5063",
    tags=("bounded", "heavy-tails"),
    in_front=True,
    required={"max_norm": 1.0},
)
@transformation()
def clip_by_global_norm(max_norm: Positive, eps: NonNegative = 0.0) -> Flow:
    r"""Scales the whole gradient down to a norm; stands in front of an optimizer.

    .. math::
        g \leftarrow g \min\left(1, \frac{c}{\|g\| + \epsilon}\right)

    with the norm over all leaves. With eps = 0 it is Optax's function, with 1e-6 torch's. The norm
    is computed scaled, so the result is right for gradients whose squares overflow or vanish, too.

    Args:
      max_norm: c; number or schedule.
      eps: added to the norm.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import clip_by_global_norm
      >>> opt = clip_by_global_norm(5.0)
      >>> g = {"w": jnp.array([6.0]), "b": jnp.array([8.0])}
      >>> clipped, _ = opt.update(g, opt.init(g))
      >>> float(clipped["w"][0]), float(clipped["b"][0])
      (3.0, 4.0)

    References:
      Pascanu, Mikolov & Bengio 2013, On the difficulty of training Recurrent Neural Networks
      (arXiv 1211.5063), algorithm 1.
    """

    def step(g: Signal) -> Signal:
        size, relative = norm_factors(g)
        allowed = divide_or_zero(scheduled(max_norm), relative + eps / size)
        return g * (1 / size) * minimum(size, allowed)

    return flow(step)

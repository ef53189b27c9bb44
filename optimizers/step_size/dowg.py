"""DoWG."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Mask,
    NonNegative,
    Positive,
    Signal,
    chain,
    decay_weights,
    flow,
    running_norm,
    scale_by_learning_rate,
    tap,
    transformation,
)
from ...transforms.notation import global_squared_norm
from ...transforms.step_size import largest_distance


@transformation()
def scale_by_dowg(init_estim_sq_dist: NonNegative | None = None, eps: Positive = 1e-4) -> Flow:
    """Steps by the squared distance come so far, over the root of a sum weighted with it.

        d_t = max(d_{t-1}, |x_t - x_0|^2),    d_0 = init_estim_sq_dist
        v_t = v_{t-1} + d_t |g_t|^2
        u_t = d_t / (sqrt(v_t) + eps) g_t

    with norms over all leaves, and x_0 the params that `init` was given. The tap "step_size" is the
    factor of g_t. The state holds the root of v, which is a number where squares are none.

    Args:
      init_estim_sq_dist: a guess of the squared distance to the solution; default eps.
      eps: added to the root.

    References:
      Khaled, Mishchenko & Jin 2023, DoWG Unleashed: An Efficient Universal Parameter-Free Gradient
      Descent Method (arXiv 2305.16284); the arguments are those of `optax.contrib.dowg`.
    """
    smallest = eps if init_estim_sq_dist is None else init_estim_sq_dist

    def step(g: Signal, params: Signal) -> Signal:
        d = largest_distance(params, smallest, squared=True)
        total = running_norm(g, lambda x: d * global_squared_norm(x), name="weighted_norm_grads")
        return tap("step_size", d / (total + eps)) * g

    return flow(step)


@method(
    "Khaled, Mishchenko & Jin 2023, DoWG Unleashed: An Efficient Universal Parameter-Free Gradient "
    "Descent Method",
    arxiv="2305.16284",
    tags=("own-rate",),
    learning_rate=1.0,
)
@transformation()
def dowg(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    init_estim_sq_dist: NonNegative | None = None,
    eps: Positive = 1e-4,
    weight_decay: NonNegative | None = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """DoWG, with the arguments of `optax.contrib.dowg`; the rule is that of `scale_by_dowg`.

    Args:
      learning_rate: a multiple of the step; 1, or a schedule that ends at 0.
      init_estim_sq_dist, eps: see `scale_by_dowg`.
      weight_decay: L2 regularisation, added to the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import dowg
      >>> opt = dowg(init_estim_sq_dist=0.25, eps=1e-12)
      >>> x = jnp.array([3.0, -4.0])
      >>> print(opt.update(x, opt.init(x), x)[0].round(3))
      [-0.3  0.4]
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        scale_by_dowg(init_estim_sq_dist=init_estim_sq_dist, eps=eps),
        scale_by_learning_rate(learning_rate),
    )

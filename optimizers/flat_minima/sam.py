"""Sharpness-aware minimization, around any optimizer."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    NonNegative,
    Signal,
    divide,
    flow,
    norm_factors,
    scheduled,
    square,
    transformation,
)
from ...transforms.closures import at_offset, gradient_at


@method(
    "Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization",
    arxiv="2010.01412",
    tags=("closure", "flat-minima"),
    learning_rate=1e-2,
)
@transformation(
    renamed={
        "optimizer": "give it as base",
        "adv_optimizer": "the ascent is one normalised step of length rho",
        "sync_period": "it takes its ascent within each step, from value_fn or grad_fn",
        "reset_state": "the ascent has no state",
        "opaque_mode": "it always takes its gradients by value_fn or grad_fn",
        "batch_axis_name": "give it a closure of the whole batch",
    }
)
def sam(
    base: optax.GradientTransformation,
    rho: NonNegative = 0.05,
    adaptive: bool = False,
    eps: NonNegative = 1e-12,
) -> Flow:
    r"""Hands an optimizer the gradient at the worst point nearby, to first order.

    .. math::
        e = \rho \frac{g}{\|g\| + \epsilon}, \qquad
        x_{t+1} = x_t + \mathrm{base}(\nabla f(x_t + e);\, x_t)

    with the norm over all leaves and g the incoming gradient. The adaptive form measures distances
    in units of the weights, so that it is the same for a network whose layers are rescaled:

    .. math::
        e = \rho \frac{x^2 g}{\| |x| g \| + \epsilon}

    entry by entry. Nothing is differentiated through e. The base steps from x, and its weight decay
    acts on x; closures and `value` that it reads are those of the loss moved by e, around the point
    at which its gradient was taken. It costs one gradient more per step than the base.

    Args:
      base: any optimizer.
      rho: radius of the neighbourhood; number or schedule. About 0.05, adaptive 0.5 to 2.
      adaptive: whether distances are measured in units of the weights.
      eps: added to the norm.

    Returns:
      The wrapped optimizer, with its state; it needs `params` and `value_fn`, the loss of this very
      batch, or `grad_fn`.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, without `value_fn` or `grad_fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sam, sgd
      >>> loss = lambda x: jnp.sum(x**4) / 4
      >>> opt, x = sam(sgd(1.0), rho=0.5), jnp.array([1.0])
      >>> opt.update(x**3, opt.init(x), x, value_fn=loss)[0].tolist()      # -(1 + 0.5)^3
      [-3.375]

    References:
      Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization
      (arXiv 2010.01412); Kwon et al. 2021, ASAM (arXiv 2102.11600) for the adaptive form. The
      authors' code perturbs on each device by its own gradient; ours by the one it is given, which
      is that of the whole batch. Statistics of batch normalisation are to be updated on the first
      pass only.
    """

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, grad_fn: Signal | None = None
    ) -> Signal:
        size, length = norm_factors(abs(params) * g if adaptive else g)
        ascent = (square(params) * g if adaptive else g) * (1 / size)
        e = scheduled(rho) * divide(ascent, length + scheduled(eps) / size, eps)
        return gradient_at(params + e, value_fn, grad_fn) >> at_offset(e, base)

    return flow(step)

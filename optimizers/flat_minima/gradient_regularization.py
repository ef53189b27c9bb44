"""A penalty on the norm of the gradient, around any optimizer."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Flow,
    NonNegative,
    Positive,
    Signal,
    bound_squares,
    flow,
    hessian_vector_product,
    scheduled,
    transformation,
)
from ...transforms.closures import gradient_at, tilted

RegularizationMode = Literal["forward", "backward", "double"]


@method(
    "Karakida et al. 2023, Understanding Gradient Regularization in Deep Learning",
    arxiv="2210.02720",
    tags=("closure", "flat-minima"),
    learning_rate=1e-2,
)
@transformation()
def gradient_regularization(
    base: optax.GradientTransformation,
    gamma: NonNegative = 0.05,
    step: Positive = 0.05,
    mode: RegularizationMode = "forward",
) -> Flow:
    r"""Hands an optimizer the gradient of the loss with a penalty on that gradient's norm.

    .. math::
        \nabla \left( f + \tfrac{\gamma}{2} \|\nabla f\|^2 \right)(x) = g + \gamma H g

    with g the incoming gradient and h the length `step`,

    .. math::
        H g \approx \begin{cases}
        (\nabla f(x + h g) - g) / h & \text{forward} \\
        (g - \nabla f(x - h g)) / h & \text{backward} \\
        H g \text{ itself, by a Hessian-vector product} & \text{double}
        \end{cases}

    At large gradients the method itself diverges, for H g grows as their square. So the base is
    handed entries of at most half the root of the largest number of the format, 9e18 in float32,
    of which it can take squares; nothing else is changed by that.

    Nothing is normalised. Forward with gamma = step hands on :math:`\nabla f(x + h g)`, which is
    `sam` without its normalisation. Closures that the base reads are those of the loss plus the
    linear term whose slope is the penalty's gradient at x, so that their gradient at x is the one
    that it is handed. Forward and backward cost one gradient more per step than the base, double
    one Hessian-vector product.

    Args:
      base: any optimizer.
      gamma: strength of the penalty; number or schedule.
      step: h. It is no rounding-sized difference but a choice: larger ones regularise more. In
        float32 those below 1e-4 lose digits.
      mode: see above.

    Returns:
      The wrapped optimizer, with its state; it needs `params` and `value_fn`, the loss of this very
      batch, without a weight decay that the base applies as well; or `grad_fn`.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, without `value_fn` or `grad_fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import gradient_regularization, sgd
      >>> loss = lambda x: 2 * jnp.sum(x**2)                        # H = 4
      >>> opt, x = gradient_regularization(sgd(1.0), gamma=0.5, step=0.25), jnp.array([1.0])
      >>> opt.update(4 * x, opt.init(x), x, value_fn=loss)[0].tolist()
      [-12.0]

    References:
      Karakida, Takase, Hayase & Osawa 2023, Understanding Gradient Regularization in Deep Learning:
      Efficient Finite-Difference Computation and Implicit Bias (arXiv 2210.02720), which recommends
      the forward difference. There is no official code.
    """

    def regularized(
        g: Signal, params: Signal, value_fn: Signal | None = None, grad_fn: Signal | None = None
    ) -> Signal:
        h, strength = scheduled(step), scheduled(gamma)
        if mode == "double":
            slope = strength * hessian_vector_product(value_fn, params, g, grad_fn)
        elif mode == "forward":
            slope = strength / h * (gradient_at(params + h * g, value_fn, grad_fn) - g)
        else:
            slope = strength / h * (g - gradient_at(params - h * g, value_fn, grad_fn))
        return bound_squares(g + slope) >> tilted(slope, base)

    return flow(regularized)

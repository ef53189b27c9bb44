"""Flooding: no loss below a level."""

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import (
    Flow,
    Number,
    Signal,
    checked,
    flow,
    scheduled,
    transformation,
    where,
)
from ...transforms.control import at_finite_losses


@method(
    "Ishida et al. 2020, Do We Need Zero Training Loss After Achieving Zero Training Error?",
    arxiv="2002.08709",
    tags=("flat-minima",),
    in_front=True,
    required={"level": 0.01},
)
@transformation()
def flooding(level: Number) -> Flow:
    r"""Turns the gradient round where the loss is below a level; stands in front of an optimizer.

    .. math::
        g \leftarrow \mathrm{sign}(f(x) - b)\, g

    the gradient of :math:`|f - b| + b`: descent above the level, ascent below it, nothing at it.
    A step up after a step down leaves :math:`-\eta^2 H g`, so that near the level it is
    `gradient_regularization` of a strength of about the learning rate. Weight decay of the
    optimizer is not turned round. Where the loss is not finite, the gradient is 0.

    In front of a method that evaluates the loss again, such as `sam`, this turns only the incoming
    gradient round: give it closures of `flood(loss, level)`, or put this inside of it.

    Args:
      level: b, the loss of a batch below which the loss is not to fall; number or schedule.

    Returns:
      A transformation without state; it needs `value`, the loss of this batch (under data
      parallelism the mean over the devices).

    Raises:
      ValueError: in update, without `value`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import flooding
      >>> opt, g = flooding(0.5), jnp.array([2.0])
      >>> [opt.update(g, opt.init(g), value=jnp.array(f))[0].tolist() for f in (0.75, 0.25)]
      [[2.0], [-2.0]]

    References:
      Ishida, Yamane, Sakai, Niu & Sugiyama 2020, Do We Need Zero Training Loss After Achieving Zero
      Training Error? (arXiv 2002.08709), whose code is the loss; as gradient regularization in
      Karakida et al. 2023 (arXiv 2210.02720).
    """

    def step(g: Signal, value: Signal) -> Signal:
        floor = scheduled(level)
        return where(value > floor, g, where(value < floor, -g, 0.0))

    return at_finite_losses(flow(step))


@checked()
def flood(loss: float | jax.Array, level: float | jax.Array) -> jax.Array:
    """The flooded loss, |loss - level| + level.

    Args:
      loss: the mean loss of a batch.
      level: below which it is not to fall.

    Returns:
      A scalar, whose gradient is that of the loss above the level and its opposite below.

    Example:
      >>> from gradchain.optimizers import flood
      >>> float(flood(0.25, 1.0))
      1.75
    """
    return jnp.abs(loss - level) + level

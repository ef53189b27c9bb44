"""The trajectory loss: outputs are kept near those of an earlier model."""

from typing import Any

import jax
import jax.numpy as jnp

from ...transforms import FlowError, NonNegativeConstant, PositiveConstant, checked
from ...transforms.notation.roots import log_softmax
from ...transforms.notation.values import at_least_float32


@checked()
def trajectory_loss(
    logits: jax.Array,
    target_logits: jax.Array,
    coefficient: NonNegativeConstant = 0.3,
    temperature: PositiveConstant = 5.0,
) -> Any:
    r"""A term that keeps the outputs near those of an earlier model, softened by a temperature.

    .. math::
        c\, T^2 \operatorname{mean}_i
        \mathrm{KL}(\mathrm{softmax}(q_i / T) \,\|\, \mathrm{softmax}(z_i / T))

    with the logits z of B examples and q those of the earlier model. Its gradient in z is
    :math:`c T (\mathrm{softmax}(z / T) - \mathrm{softmax}(q / T)) / B`; none flows to q.

    Args:
      logits: z, shape (..., classes), of the training forward pass.
      target_logits: q, of the same shape.
      coefficient: c, >= 0; a number, or an array that is 0 while the term rests.
      temperature: T, > 0.

    Returns:
      A scalar, in the precision of the logits and at least float32.

    Raises:
      ValueError: for logits of different shapes, a negative coefficient or a temperature that is
        not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import trajectory_loss
      >>> z, q = jnp.array([[1.0, -1.0]]), jnp.array([[-1.0, 1.0]])
      >>> round(float(trajectory_loss(z, q, coefficient=1.0, temperature=1.0)), 4)
      1.5232

    References:
      Du et al. 2022, Sharpness-Aware Training for Free (arXiv 2205.14083). The authors' code takes
      the logarithm of a softmax; ours computes it at once, which loses no digits.
    """
    if jnp.shape(logits) != jnp.shape(target_logits) or jnp.ndim(logits) < 1:
        raise FlowError(
            f"trajectory_loss: logits of shape {jnp.shape(logits)} and target_logits of shape "
            f"{jnp.shape(target_logits)} must have one shape, the classes on the last axis"
        )
    dtype = at_least_float32(jnp.result_type(logits))
    cold = jnp.asarray(temperature, dtype)
    now = log_softmax(jnp.asarray(logits, dtype), cold)
    past = log_softmax(jax.lax.stop_gradient(jnp.asarray(target_logits, dtype)), cold)
    divergence = jnp.sum(jnp.exp(past) * (past - now), axis=-1)
    return jnp.asarray(coefficient, dtype) * cold**2 * jnp.mean(divergence)

"""StableMax: a softmax that large logits do not saturate."""

import jax
import jax.numpy as jnp

from ...transforms import FlowError, checked
from ...transforms.notation.values import at_least_float32


@checked()
def stablemax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""The mean cross-entropy of integer labels, with StableMax in place of the softmax.

    .. math::
        s(x) = \begin{cases} x + 1 & x \ge 0 \\ 1 / (1 - x) & x < 0 \end{cases}, \qquad
        p = s(x) / \textstyle\sum s(x), \qquad \mathrm{loss} = \mathrm{mean}(-\log p_{label})

    It grows linearly where the softmax grows exponentially, so that probabilities of the labels do
    not round to 1, and gradients not to 0, long before training is over.

    Args:
      logits: real numbers, of any shape; the classes are along the last axis.
      labels: integers, of the shape of the logits without that axis.

    Returns:
      A scalar, at least float32; logarithms are subtracted, so that no logit is too large.

    Raises:
      ValueError: for labels that are no integers or do not fit the logits.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import stablemax_cross_entropy
      >>> loss = stablemax_cross_entropy(jnp.array([[1.0, -1.0, 0.5]]), jnp.array([0]))
      >>> round(float(loss), 4), round(float(jnp.exp(-loss)), 4)
      (0.6931, 0.5)

    References:
      Prieto et al. 2025, Grokking at the Edge of Numerical Stability (arXiv 2501.04697), where it
      goes with `perpgrad`. The official code computes in float64; with `jax_enable_x64` and logits
      in float64 so do we.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise FlowError(f"stablemax_cross_entropy: labels of dtype {labels.dtype} must be integers")
    if logits.ndim == 0 or labels.shape != logits.shape[:-1]:
        raise FlowError(
            f"stablemax_cross_entropy: labels of shape {labels.shape} must have the shape of the "
            f"logits, {logits.shape}, without the last axis"
        )
    sizes = _log_sizes(logits.astype(at_least_float32(logits.dtype)))
    of_labels = jnp.take_along_axis(sizes, labels[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(sizes, axis=-1) - of_labels)


def _log_sizes(x: jax.Array) -> jax.Array:
    """The logarithm of s."""
    # both branches in one expression: the derivative at 0 is that of s, 1
    size = jnp.log1p(jnp.where(x >= 0, x, -x))
    return jnp.where(x >= 0, size, -size)

"""Mean and covariance of the gradients of single examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import FlowError, checked
from ...transforms.notation.roots import balanced
from ...transforms.notation.rows import mean_of_rows
from .vectors import check_real, dot, in_unit, wide


class GradientMoments(NamedTuple):
    """Of gradients on a leading axis.

    Attributes:
      mean: a tree like one gradient.
      trace: of their covariance, unbiased.
      examples: how many.
    """

    mean: optax.Updates
    trace: jax.Array
    examples: int


@method(
    "Roberts 2021, SGD Implicitly Regularizes Generalization Error",
    arxiv="2104.04874",
    tags=("measurement",),
    kind="measurement",
    required={"per_example_grads": np.eye(2)},
)
@checked()
def gradient_moments(per_example_grads: optax.Updates) -> GradientMoments:
    r"""The mean of the gradients of N examples, and the trace of their covariance.

    .. math::
        g = \frac{1}{N} \sum_i g_i, \qquad c = \frac{1}{N - 1} \sum_i |g_i - g|^2

    A first step of gradient descent at rate eta on N examples widens the gap of generalisation by
    eta c / N, in first order and on average over the choice of the examples.

    Args:
      per_example_grads: a tree whose leaves have a leading axis of N, of at least 2: from
        `jax.vmap(jax.grad(loss), (None, 0))`.

    Returns:
      `GradientMoments`.

    Raises:
      ValueError: for leading axes that differ, or are below 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import gradient_moments
      >>> found = gradient_moments(jnp.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]))
      >>> found.mean.tolist(), float(found.trace)
      ([2.0, 1.0], 4.0)

    References:
      Roberts 2021, SGD Implicitly Regularizes Generalization Error (arXiv 2104.04874). There is no
      code; the gap above is the first-order part of the paper's formula, in which later steps
      depend on the same two moments.
    """
    check_real("gradient_moments", "per_example_grads", per_example_grads)
    grads = wide(per_example_grads)
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(grads)}
    if len(counts) != 1 or not (first := counts.pop()) or first[0] < 2:
        raise FlowError(
            "gradient_moments: per_example_grads must have the same leading axis, of at least 2"
        )
    n = first[0]
    mean = jax.tree.map(mean_of_rows, grads)
    away = jax.tree.map(lambda g, m: jnp.sum(jnp.square(g - m[None])), grads, mean)
    return GradientMoments(mean, balanced(jax.tree.leaves(away)) / (n - 1), n)


@checked()
def update_correlation(previous: optax.Updates, update: optax.Updates) -> jax.Array:
    """The cosine between two successive updates, which minibatches make smaller.

    Args:
      previous: the update before.
      update: this one, a tree like it.

    Returns:
      A scalar in [-1, 1]; 0 where one of them is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import update_correlation
      >>> float(update_correlation(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
      0.0

    References:
      Roberts 2021, SGD Implicitly Regularizes Generalization Error (arXiv 2104.04874).
    """
    before, now = in_unit(previous), in_unit(update)
    lengths = jnp.sqrt(dot(before, before)) * jnp.sqrt(dot(now, now))
    return jnp.clip(dot(before, now) / jnp.where(lengths > 0, lengths, 1), -1, 1)

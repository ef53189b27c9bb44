"""Rules that look at every coordinate by itself."""

from collections.abc import Callable
from typing import Literal

import jax
import optax

from ...registry import method
from ...transforms import Length
from ...transforms.notation.checks import checked
from ...transforms.notation.rows import mean_of_rows, sorted_rows
from .rows import closest_mean, each_entry, lower_median, require_workers

Rule = Callable[[optax.Params], optax.Params]


@method(
    "Yin et al. 2018, Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
    arxiv="1803.01498",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def trimmed_mean(num_byzantine: Length) -> Rule:
    """For every coordinate the mean of what is left without the f smallest and the f largest.

        g = mean(x_(f+1), ..., x_(n-f)),  with x_(1) <= ... <= x_(n)

    Each coordinate of the result lies between the smallest and the largest honest one. What is not
    finite counts as largest.

    Args:
      num_byzantine: f; n >= 2 f + 1 workers are needed. With 0 it is the mean.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import trimmed_mean
      >>> trimmed_mean(num_byzantine=1)(jnp.array([[1.0], [2.0], [4.0], [-99.0]])).tolist()
      [1.5]

    References:
      Yin et al. 2018 (arXiv 1803.01498).
    """

    def rule(stacked: optax.Params) -> optax.Params:
        return each_entry("trimmed_mean", lambda x: trimmed(x, num_byzantine), stacked)

    return rule


@method(
    "Yin et al. 2018, Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
    arxiv="1803.01498",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
)
@checked()
def coordinate_median(even: Literal["average", "lower"] = "average") -> Rule:
    """For every coordinate the median.

        g = (x_(floor((n+1)/2)) + x_(floor(n/2)+1)) / 2,  with x_(1) <= ... <= x_(n)

    While less than half of the workers are at fault, each coordinate of the result lies between the
    smallest and the largest honest one. What is not finite counts as largest.

    Args:
      even: of an even number "average" takes the mean of the two in the middle, "lower" the lower
        of them, as torch does.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for an unknown choice.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import coordinate_median
      >>> coordinate_median()(jnp.array([[1.0], [2.0], [4.0], [-99.0]])).tolist()
      [1.5]

    References:
      Yin et al. 2018 (arXiv 1803.01498).
    """

    def median(x: jax.Array) -> jax.Array:
        ordered, n = sorted_rows(x), len(x)
        lower, upper = ordered[(n - 1) // 2], ordered[n // 2]
        return lower if even == "lower" else lower / 2 + upper / 2

    return lambda stacked: each_entry("coordinate_median", median, stacked)


@method(
    "Xie et al. 2018, Phocas: dimensional Byzantine-resilient stochastic gradient descent",
    arxiv="1805.09682",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def phocas(num_byzantine: Length) -> Rule:
    """For every coordinate the mean of the n - f that are closest to the trimmed mean.

        g = mean of the n - f entries x_i of least |x_i - trimmed_mean(x)|

    Each coordinate of the result is no farther from the range of the honest ones than that range is
    wide. What is not finite counts as largest.

    Args:
      num_byzantine: f; n >= 2 f + 1 workers are needed.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import phocas
      >>> phocas(num_byzantine=1)(jnp.array([[1.0], [2.0], [3.0], [-99.0]])).tolist()
      [2.0]

    References:
      Xie et al. 2018 (arXiv 1805.09682).
    """

    def near_trimmed(x: jax.Array) -> jax.Array:
        return closest_mean(x, trimmed(x, num_byzantine, "phocas"), len(x) - num_byzantine)

    return lambda stacked: each_entry("phocas", near_trimmed, stacked)


@method(
    "Xie et al. 2018, Generalized Byzantine-tolerant SGD",
    arxiv="1802.10116",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def meamed(num_byzantine: Length) -> Rule:
    """For every coordinate the mean of the n - f that are closest to the median, the lower one.

        g = mean of the n - f entries x_i of least |x_i - median(x)|

    Each coordinate of the result is no farther from the range of the honest ones than that range is
    wide. What is not finite counts as largest.

    Args:
      num_byzantine: f; n >= 2 f + 1 workers are needed.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import meamed
      >>> meamed(num_byzantine=1)(jnp.array([[1.0], [2.0], [3.0], [-99.0]])).tolist()
      [2.0]

    References:
      Xie et al. 2018, Generalized Byzantine-tolerant SGD (arXiv 1802.10116).
    """

    def near_median(x: jax.Array) -> jax.Array:
        require_workers("meamed", num_byzantine, len(x), 2, 1)
        return closest_mean(x, lower_median(x), len(x) - num_byzantine)

    return lambda stacked: each_entry("meamed", near_median, stacked)


def trimmed(x: jax.Array, num_byzantine: int, label: str = "trimmed_mean") -> jax.Array:
    """The mean of real rows without the smallest and largest of every entry."""
    require_workers(label, num_byzantine, len(x), 2, 1)
    return mean_of_rows(sorted_rows(x)[num_byzantine : len(x) - num_byzantine])

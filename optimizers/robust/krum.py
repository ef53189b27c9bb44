"""Krum: the gradient that has the closest neighbours."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import FlowError, Length, Size
from ...transforms.notation.checks import checked
from .rows import Rows, lowest, relative, require_workers

Rule = Callable[[optax.Params], optax.Params]
"""From a stacked tree, with the workers on the leading axes, to one tree."""

PAPER = (
    "Blanchard et al. 2017, Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent"
)


@method(
    PAPER,
    arxiv="1703.02757",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def krum(num_byzantine: Length, squared: bool = False, num_neighbors: Size | None = None) -> Rule:
    r"""The gradient with the closest neighbours, of n of which f may be anything.

    .. math::
        i = \operatorname*{argmin}_i \sum_{j \in N_i} \|x_i - x_j\|, \qquad g = x_i

    with N_i the nearest others, over all leaves together.

    With f > 0 the result is no farther from any honest gradient than D (1 + k / (k - f)), where D
    is the largest distance of two honest ones and k the number of neighbours. Gradients that are
    not finite are infinitely far from all.

    Args:
      num_byzantine: f; n >= 2 f + 3 workers are needed where it is not 0.
      squared: squared distances, as in the paper.
      num_neighbors: k, at most n - f - 1, which is the default; the paper has n - f - 2.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import krum
      >>> rule = krum(num_byzantine=1)
      >>> rule(jnp.array([[1.0], [1.2], [1.3], [1.5], [99.0]])).tolist()
      [1.2000000476837158]

    References:
      Blanchard et al. 2017 (arXiv 1703.02757). Distances that are not squared, and n - f - 1
      neighbours, are those of LPD-EPFL/robust-collaborative-learning.
    """

    def rule(stacked: optax.Params) -> optax.Params:
        rows = Rows.of("krum", stacked)
        scores = neighbour_scores("krum", rows, num_byzantine, squared, num_neighbors)
        return rows.tree(rows.weighted(lowest(scores, 1)))

    return rule


@method(
    PAPER,
    arxiv="1703.02757",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def multi_krum(
    num_byzantine: Length,
    num_selected: Size | None = None,
    squared: bool = False,
    num_neighbors: Size | None = None,
) -> Rule:
    """The mean of the gradients that have the closest neighbours; the scores are those of `krum`.

        g = mean(x_(1), ..., x_(m)),  in the order of their scores

    The bound is that of `krum`.

    Args:
      num_byzantine: f; n >= 2 f + 3 workers are needed where it is not 0.
      num_selected: of how many, at most n - f, which is the default; the paper has n - f - 2.
      squared, num_neighbors: see `krum`.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import multi_krum
      >>> rule = multi_krum(num_byzantine=1)
      >>> rule(jnp.array([[1.0], [2.0], [2.0], [3.0], [99.0]])).tolist()
      [2.0]

    References:
      Blanchard et al. 2017 (arXiv 1703.02757); n - f as in LPD-EPFL/robust-collaborative-learning.
    """

    def rule(stacked: optax.Params) -> optax.Params:
        rows = Rows.of("multi_krum", stacked)
        scores = neighbour_scores("multi_krum", rows, num_byzantine, squared, num_neighbors)
        most = len(rows) - num_byzantine
        selected = _at_most("multi_krum", "num_selected", num_selected, most, "n - f")
        return rows.tree(rows.weighted(lowest(scores, selected)))

    return rule


def neighbour_scores(
    label: str, rows: Rows, num_byzantine: int, squared: bool, num_neighbors: int | None
) -> jax.Array:
    """For each worker the sum of the smallest distances to others."""
    if num_byzantine:
        require_workers(label, num_byzantine, len(rows), 2, 3)
    most = len(rows) - num_byzantine - 1
    neighbors = _at_most(label, "num_neighbors", num_neighbors, most, "n - f - 1")
    distances = relative(rows.distances())
    return sums_of_nearest(distances * distances if squared else distances, neighbors)


def sums_of_nearest(distances: jax.Array, count: int | jax.Array) -> jax.Array:
    """For each row the sum of its `count` smallest entries, those of the diagonal left out."""
    n = len(distances)
    others = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, distances)
    nearest = jnp.arange(n) < count
    return jnp.sum(jnp.where(nearest, jnp.sort(others, axis=1), 0), axis=1)


def _at_most(label: str, name: str, given: int | None, most: int, formula: str) -> int:
    if given is not None and given > most:
        raise FlowError(f"{label}: {name}={given} must be at most {formula} = {most}")
    return most if given is None else given

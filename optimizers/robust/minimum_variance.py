"""Minimum-variance averaging."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import FlowError, Length
from ...transforms.notation.checks import checked
from .rows import Rows, relative, require_workers

MOST_SUBSETS = 100_000


@method(
    "El Mhamdi et al. 2021, Collaborative Learning in the Jungle",
    arxiv="2008.00742",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def minimum_variance(num_byzantine: Length) -> Callable[[optax.Params], optax.Params]:
    r"""The mean of the n - f gradients that lie closest together, among all choices of so many.

    .. math::
        S = \operatorname*{argmin}_{|S| = n - f} \sum_{i \in S} \|x_i - \bar x_S\|^2, \qquad
        g = \bar x_S

    over all leaves together.

    The result is no farther from any honest gradient than D (1 + sqrt(n - f)), where D is the
    largest distance of two honest ones.

    Args:
      num_byzantine: f; n >= 2 f + 1 workers are needed, and few enough for all choices to be tried:
        at most 100000.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few or too many workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import minimum_variance
      >>> minimum_variance(num_byzantine=1)(jnp.array([[1.0], [2.0], [3.0], [99.0]])).tolist()
      [2.0]

    References:
      El Mhamdi et al. 2021 (arXiv 2008.00742), as in LPD-EPFL/robust-collaborative-learning.
    """

    def rule(stacked: optax.Params) -> optax.Params:
        rows = Rows.of("minimum_variance", stacked)
        require_workers("minimum_variance", num_byzantine, len(rows), 2, 1)
        choices = jnp.asarray(_subsets(len(rows), num_byzantine), rows.dtype)
        spreads = _spreads(choices, jnp.square(relative(rows.distances())))
        chosen = jnp.take(choices, jnp.argmin(spreads), axis=0)
        return rows.tree(rows.weighted(chosen / (len(rows) - num_byzantine)))

    return rule


def _subsets(n: int, f: int) -> Any:
    """Every choice of n - f of n as a row of 0 and 1, in lexicographic order."""
    count = math.comb(n, f)
    if count > MOST_SUBSETS:
        raise FlowError(
            f"minimum_variance: num_byzantine={f} of {n} workers makes {count} choices to try; at "
            f"most {MOST_SUBSETS} are"
        )
    rows = np.zeros((count, n), np.float32)
    chosen = np.array(list(itertools.combinations(range(n), n - f)))
    np.put_along_axis(rows, chosen, 1.0, axis=1)
    return rows


def _spreads(choices: jax.Array, squares: jax.Array) -> jax.Array:
    """Sums of squared distances within each choice, n - f times those to its mean."""
    infinite = jnp.isinf(squares)
    finite = jnp.where(infinite, 0, squares)
    within = [
        jnp.sum(jnp.matmul(choices, x, precision="highest") * choices, axis=1)
        for x in (finite, infinite.astype(squares.dtype))
    ]
    return jnp.where(within[1] > 0, jnp.inf, within[0])

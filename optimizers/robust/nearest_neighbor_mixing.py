"""Nearest-neighbour mixing: every gradient is first averaged with those around it."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Length
from ...transforms.notation.checks import checked
from .coordinatewise import trimmed_mean
from .rows import Rows, along, lowest, require_workers


@method(
    "Allouah et al. 2023, Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity",
    arxiv="2302.01772",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def nearest_neighbor_mixing(
    num_byzantine: Length, then: Callable[..., Any] = trimmed_mean
) -> Callable[[optax.Params], optax.Params]:
    r"""Every gradient becomes the mean of the n - f closest to it, then another rule is applied.

    .. math::
        y_i = \frac 1 {n - f} \sum_{j \in N_i} x_j, \qquad g = R(y_1, \dots, y_n)

    where N_i, to which i belongs, is by distance over all leaves.

    Behind `trimmed_mean` or `coordinate_median`, each coordinate of the result is no farther from
    the range of the honest ones than D, the largest distance of two honest gradients.

    Args:
      num_byzantine: f; n >= 2 f + 1 workers are needed.
      then: R: a rule, or a factory of rules with the argument `num_byzantine`, which is given f.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import nearest_neighbor_mixing
      >>> rule = nearest_neighbor_mixing(num_byzantine=1)
      >>> rule(jnp.array([[1.0], [2.0], [3.0], [99.0]])).tolist()
      [2.0]

    References:
      Allouah et al. 2023 (arXiv 2302.01772).
    """
    made = "num_byzantine" in inspect.signature(then).parameters
    second = then(num_byzantine=num_byzantine) if made else then

    def rule(stacked: optax.Params) -> optax.Params:
        rows = Rows.of("nearest_neighbor_mixing", stacked)
        require_workers("nearest_neighbor_mixing", num_byzantine, len(rows), 2, 1)
        mixed = rows.weighted(lowest(rows.distances(), len(rows) - num_byzantine))
        # who sent no numbers has no neighbours, and is at fault for the second rule, too
        marked = [jnp.where(along(rows.finite, y), y, jnp.inf) for y in mixed]
        return rows.tree(jax.tree.leaves(second(marked)))

    return rule

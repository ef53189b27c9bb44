"""The geometric median."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import PositiveConstant, Size
from ...transforms.notation.checks import checked
from ...transforms.notation.known import repeat
from .rows import Rows


@method(
    "Pillutla et al. 2022, Robust Aggregation for Federated Learning",
    arxiv="1912.13445",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
)
@checked()
def geometric_median(
    nu: PositiveConstant = 0.1, num_iters: Size = 3
) -> Callable[[optax.Params], optax.Params]:
    r"""The point of least summed distance to the gradients, by smoothed Weiszfeld steps.

    From z = 0,

    .. math::
        b_i = \frac 1 {\max(\|z - x_i\|, \nu)}, \qquad
        z \leftarrow \frac{\sum_i b_i x_i}{\sum_i b_i}

    with the norm over all leaves.

    While h of n workers are honest, with gradients no longer than R >= nu, the result is no longer
    than R ((1 + n/h)^k - 1) after k steps, whatever the others send. Gradients that are not finite
    weigh nothing.

    Args:
      nu: distances below it count as it.
      num_iters: steps.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import geometric_median
      >>> rule = geometric_median(nu=0.01, num_iters=50)
      >>> print(rule(jnp.array([[1.0], [2.0], [3.0], [2.0], [99.0]])).round(1))
      [2.]

    References:
      Pillutla et al. 2022 (arXiv 1912.13445); start and number of steps as in
      LPD-EPFL/robust-collaborative-learning.
    """

    def rule(stacked: optax.Params) -> optax.Params:
        rows = Rows.of("geometric_median", stacked)

        def towards(_: int | jax.Array, z: list[jax.Array]) -> list[jax.Array]:
            return rows.weighted(_shares(jnp.maximum(rows.distances_to(z), nu)))

        return rows.tree(repeat(num_iters, towards, [jnp.zeros_like(x[0]) for x in rows.leaves]))

    return rule


def _shares(distances: jax.Array) -> jax.Array:
    """Shares that go with one over each distance; nothing where it is infinite."""
    known = jnp.isfinite(distances)
    least = jnp.min(jnp.where(known, distances, jnp.inf))
    weights = jnp.where(known, least / jnp.where(known, distances, 1), 0)
    return jnp.where(known, weights / jnp.sum(jnp.where(known, weights, 0)), 0)

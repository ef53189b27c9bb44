"""The weighted sum of the gradients."""

from ...transforms import Flow, flow, transformation
from ...transforms.objectives import check_vector, weigh
from ...transforms.objectives.preferences import Vector


@transformation()
def weighted_sum(weights: Vector | None = None) -> Flow:
    """The weighted sum of stacked gradients: the plain way to train for several objectives.

        g = sum_i w_i g_i

    Args:
      weights: w, one number for each objective; default 1/m, the mean.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import weighted_sum
      >>> aggregate = weighted_sum([1.0, 0.5])
      >>> aggregate.update(jnp.array([[4.0], [8.0]]), aggregate.init(jnp.zeros(1)))[0].tolist()
      [8.0]
    """
    check_vector("weighted_sum", "weights", weights)

    return flow(lambda g: weigh(g, weights))

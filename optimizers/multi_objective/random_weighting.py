"""Random weights of the objectives."""

import jax

from ...registry import method
from ...transforms import Flow, Key, Signal, flow, lift, transformation
from ...transforms.notation import draws
from ...transforms.objectives import bare_array, draw_for_objectives, weigh
from ...transforms.trees import random_key


@method(
    "Lin et al. 2021, Reasonable Effectiveness of Random Weighting: A Litmus Test for "
    "Multi-Task Learning",
    arxiv="2111.10603",
    tags=(
        "several-losses",
        "noise",
    ),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def random_weighting(key: Key = 0) -> Flow:
    r"""Weighs stacked gradients by random numbers, drawn anew at every step.

    .. math::
        w = \operatorname{softmax}(n), \quad n \sim N(0, I_m), \qquad g = \sum_i w_i g_i

    The weights are those of the step: one vector for the whole tree. It stands in front of any
    optimizer. The gradient of the loss sum_i w_i L_i is the same and costs one back-propagation:
    where the weights are drawn outside, no gradients need be stacked.

    One objective: its gradient. Rows of zeros keep their weight. Gradients in opposite directions:
    now one, now the other prevails.

    Args:
      key: seed or key of the draws.

    Returns:
      A transformation from stacked gradients to ordinary ones, whose state is a key and a counter.
      The extra argument `normals`, m numbers, stands in for n.

    Raises:
      ValueError: in update, for gradients that are not stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import random_weighting
      >>> aggregate = random_weighting()
      >>> stacked, state = jnp.array([[4.0], [8.0]]), aggregate.init(jnp.zeros(1))
      >>> aggregate.update(stacked, state, normals=jnp.zeros(2))[0].tolist()
      [6.0]

    References:
      Lin et al. 2021, Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
      Learning (arXiv 2111.10603).
    """

    softmax = lift(jax.nn.softmax, "softmax")

    def step(g: Signal, normals: Signal | None = None) -> Signal:
        n = draw_for_objectives(g, random_key(key), draws.normal, bare_array(normals))
        return weigh(g, softmax(n))

    return flow(step)

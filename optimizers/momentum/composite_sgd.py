"""SGD on a loss and a term that has a proximal operator."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from ...registry import method
from ...transforms import Flow, Signal, flow, lift_tree, scheduled, transformation
from ...transforms.notation.values import Leaves


@method(
    "Liu & Zhou 2024, Revisiting the Last-Iterate Convergence of Stochastic Gradient Methods",
    arxiv="2312.08531",
    tags=("low-memory",),
    learning_rate=0.1,
)
@transformation()
def composite_sgd(
    learning_rate: optax.ScalarOrSchedule,
    prox: Callable[[Any, jax.Array], optax.Params] | None = None,
) -> Flow:
    r"""SGD on f + h, where h is a term with a proximal operator: a norm, or a set to stay in.

    .. math::
        x_{t+1} = \operatorname{prox}_{\eta_t h}(x_t - \eta_t g_t), \qquad
        \operatorname{prox}_{\eta h}(y) = \arg\min_x h(x) + \|x - y\|^2 / (2 \eta)

    with g the gradient of f alone. With a rate of `schedules.last_iterate_schedule` the last
    iterate comes with the guarantee; nothing is averaged.

    Args:
      learning_rate: eta; number or schedule.
      prox: `(params, rate) -> params`, of the whole tree; the sets of `transforms.projections`
        become one by `lambda params, rate: box(-1.0, 1.0)(params)`. None for h = 0.

    Returns:
      The optimizer; `update` needs `params` where there is a `prox`. It has no state but the count
      of a schedule.

    Raises:
      ValueError: for a hyper-parameter out of range, or what a `prox` returns with other shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import composite_sgd
      >>> soft = lambda x, rate: jnp.sign(x) * jnp.maximum(jnp.abs(x) - rate, 0)
      >>> opt, x = composite_sgd(0.5, soft), jnp.array([2.0, 0.25])
      >>> updates, _ = opt.update(jnp.array([1.0, 1.0]), opt.init(x), x)
      >>> (x + updates).tolist()
      [1.0, 0.0]

    References:
      Liu & Zhou 2024 (arXiv 2312.08531), with the Euclidean distance. There is no published code.
    """
    if prox is None:
        return flow(lambda g: -scheduled(learning_rate) * g)

    def step(g: Signal, params: Signal) -> Signal:
        rate = scheduled(learning_rate)
        return _proximal(params - rate * g, rate, prox=prox) - params

    return flow(step)


def _proximal_of(point: Leaves, rate: float | jax.Array, prox: Callable[[Any, Any], Any]) -> Leaves:
    return Leaves.up_to(point.treedef, prox(point.tree(), rate))


_proximal = lift_tree(_proximal_of, "prox", out=0)

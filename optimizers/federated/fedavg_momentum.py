"""FedAvg-M: the last direction of all is mixed into the steps of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Positive, Share, Size
from ...transforms.notation.checks import checked
from .pair import Client, Federated, Server
from .rates import by_round
from .trees import (
    GradientFunction,
    gradient,
    like,
    local_steps,
    mean,
    minus,
    over,
    plus,
    select,
    times,
    wide,
    zeros,
)


class Momentum(NamedTuple):
    """The server's state: the last direction, and the params before it moved along it."""

    direction: optax.Params
    previous: optax.Params


@method(
    "Cheng et al. 2024, Momentum Benefits Non-IID Federated Learning Simply and Provably",
    arxiv="2306.16504",
    tags=("workers", "momentum"),
    kind="federated",
    learning_rate=None,
    required={"learning_rate": 0.05, "global_learning_rate": 0.2, "num_local_steps": 4},
)
@checked()
@by_round("learning_rate", "global_learning_rate")
def fedavg_momentum(
    learning_rate: Positive,
    global_learning_rate: Positive,
    beta: Share = 0.1,
    *,
    num_local_steps: Size,
    variance_reduced: bool = False,
) -> Federated:
    r"""Local steps along a mix of the client's gradient and of the server's last direction.

    Client i of the S that take part takes K steps from y = x:

    .. math::
        d &= \beta \nabla F_i(y) + (1 - \beta) g, \qquad y \leftarrow y - \eta d \\
        g &\leftarrow \frac 1 {\eta S K} \sum_i (x - y_i), \qquad x \leftarrow x - \gamma g

    with g = 0 at first. The variance-reduced form has, with the params :math:`x^-` of the round
    before and the same minibatch twice,

    .. math::
        d = \nabla F_i(y) + (1 - \beta) (g - \nabla F_i(x^-))

    Args:
      learning_rate: eta, of the clients; number or schedule of the round.
      global_learning_rate: gamma, likewise; eta K averages the params.
      beta: weight of the new gradient, in [0, 1]; 1 is FedAvg, small ones are heavy momentum.
      num_local_steps: K.
      variance_reduced: the second form.

    Returns:
      The pair of client and server, for `federated.simulate`; clients keep nothing.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import fedavg_momentum
      >>> method = fedavg_momentum(0.1, 0.5, beta=0.5, num_local_steps=5)
      >>> everyone = jnp.array([[0, 1]] * 60)
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 3.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, everyone, num_clients=2)
      >>> round(float(run.params), 2)
      2.0

    References:
      Cheng, Huang, Wu & Yuan 2024 (arXiv 2306.16504). There is no official code.
    """
    eta: Any = learning_rate  # a number, see `by_round`
    gamma: Any = global_learning_rate  # a number, see `by_round`

    def run(
        broadcast: tuple[optax.Params, Momentum],
        state: tuple[()],
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[optax.Params, tuple[()]]:
        params, held = broadcast
        steps = num_local_steps if num_steps is None else jnp.minimum(num_steps, num_local_steps)

        def step(k: int | jax.Array, y: optax.Params) -> optax.Params:
            g = gradient(grad_fn, y, k, params)
            if variance_reduced:
                last = gradient(grad_fn, held.previous, k, params)
                d = plus(g, 1 - beta, minus(held.direction, last))
            else:
                d = plus(times(beta, g), 1 - beta, held.direction)
            return plus(y, -eta, d)

        start = wide(params)
        end = local_steps(step, start, num_steps, num_local_steps)
        return over(times(1 / eta, minus(start, end)), steps), ()

    def update(
        params: optax.Params, state: Momentum, messages: optax.Params, clients: jax.Array
    ) -> tuple[optax.Params, Momentum]:
        g = mean(messages, clients)
        moved = like(plus(wide(params), -gamma, g), params)
        found = moved, Momentum(g, wide(params))
        return select((clients >= 0).any(), found, (params, state))

    return Federated(
        Client(lambda params, client: (), run, num_local_steps),
        Server(
            lambda params, num_clients: Momentum(
                zeros(params), jax.tree.map(jnp.copy, wide(params))
            ),
            lambda params, state: (params, state),
            update,
        ),
    )

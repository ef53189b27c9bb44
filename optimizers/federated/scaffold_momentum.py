"""SCAFFOLD-M: control variates against the drift of clients, and momentum."""

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
    total,
    wide,
    zeros,
)


class Held(NamedTuple):
    """The server's state.

    Attributes:
      control: c, the mean over all clients of their control variates.
      direction: the last one.
      previous: the params before they moved along it.
      clients: how many there are.
    """

    control: optax.Params
    direction: optax.Params
    previous: optax.Params
    clients: jax.Array


class Upload(NamedTuple):
    """The mean direction of a client's steps, and the change of its control variate."""

    direction: optax.Params
    control: optax.Params


@method(
    "Cheng et al. 2024, Momentum Benefits Non-IID Federated Learning Simply and Provably",
    arxiv="2306.16504",
    tags=("workers", "momentum", "tracked-mean"),
    kind="federated",
    learning_rate=None,
    required={"learning_rate": 0.05, "global_learning_rate": 0.2, "num_local_steps": 4},
)
@checked()
@by_round("learning_rate", "global_learning_rate")
def scaffold_momentum(
    learning_rate: Positive,
    global_learning_rate: Positive,
    beta: Share = 0.1,
    *,
    num_local_steps: Size,
    variance_reduced: bool = False,
) -> Federated:
    r"""FedAvg-M whose clients correct their gradients by what they know of all the others'.

    Client i of the S that take part, out of N, takes K steps from y = x:

    .. math::
        d &= \beta (\nabla F_i(y) - c_i + c) + (1 - \beta) g, \qquad y \leftarrow y - \eta d \\
        c_i^+ &= \frac 1 K \sum_k \nabla F_i(y_k), \qquad
        g \leftarrow \frac 1 {\eta S K} \sum_i (x - y_i), \qquad x \leftarrow x - \gamma g \\
        c &\leftarrow c + \frac 1 N \sum_i (c_i^+ - c_i)

    all zero at first. The variance-reduced form has, with the params :math:`x^-` of the round
    before and the same minibatch twice,

    .. math::
        d = \nabla F_i(y) - \beta (c_i - c) + (1 - \beta) (g - \nabla F_i(x^-))

    Args:
      learning_rate: eta, of the clients; number or schedule of the round.
      global_learning_rate: gamma, likewise; eta K averages the params.
      beta: weight of the new gradient, in [0, 1]; 1 is SCAFFOLD, small ones are heavy momentum.
      num_local_steps: K.
      variance_reduced: the second form.

    Returns:
      The pair of client and server, for `federated.simulate`; each client keeps one tree of the
      params' size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import scaffold_momentum
      >>> method = scaffold_momentum(0.1, 0.5, beta=1.0, num_local_steps=5)
      >>> one_each = jnp.array([[0], [1]] * 60)              # one client a round, in turn
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 3.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, one_each, num_clients=2)
      >>> round(float(run.params), 2)
      2.0

    References:
      Cheng, Huang, Wu & Yuan 2024 (arXiv 2306.16504); Karimireddy et al. 2020, SCAFFOLD (arXiv
      1910.06378). There is no official code.
    """
    eta: Any = learning_rate  # a number, see `by_round`
    gamma: Any = global_learning_rate  # a number, see `by_round`

    def run(
        broadcast: tuple[optax.Params, Held],
        control: optax.Params,
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[Upload, optax.Params]:
        params, held = broadcast
        steps = num_local_steps if num_steps is None else jnp.minimum(num_steps, num_local_steps)

        def step(
            k: int | jax.Array, carry: tuple[optax.Params, optax.Params]
        ) -> tuple[optax.Params, optax.Params]:
            y, raw = carry
            g = gradient(grad_fn, y, k, params)
            corrected = plus(plus(zeros(g), beta, held.control), -beta, control)
            if variance_reduced:
                last = gradient(grad_fn, held.previous, k, params)
                d = plus(plus(g, 1, corrected), 1 - beta, minus(held.direction, last))
            else:
                d = plus(plus(corrected, beta, g), 1 - beta, held.direction)
            return plus(y, -eta, d), plus(raw, 1, g)

        start = wide(params)
        end, raw = local_steps(step, (start, zeros(params)), num_steps, num_local_steps)
        new = over(raw, steps)
        moved = over(times(1 / eta, minus(start, end)), steps)
        return Upload(moved, minus(new, control)), new

    def update(
        params: optax.Params, state: Held, messages: Upload, clients: jax.Array
    ) -> tuple[optax.Params, Held]:
        g = mean(messages.direction, clients)
        changed = over(total(messages.control, clients), state.clients)
        control = plus(state.control, 1, changed)
        moved = like(plus(wide(params), -gamma, g), params)
        found = moved, Held(control, g, wide(params), state.clients)
        return select((clients >= 0).any(), found, (params, state))

    def init(params: optax.Params, num_clients: int) -> Held:
        start = jax.tree.map(jnp.copy, wide(params))
        return Held(zeros(params), zeros(params), start, jnp.asarray(num_clients, jnp.int32))

    return Federated(
        Client(lambda params, client: zeros(params), run, num_local_steps),
        Server(init, lambda params, state: (params, state), update),
    )

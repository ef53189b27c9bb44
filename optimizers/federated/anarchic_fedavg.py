"""Anarchic federated averaging: clients start when and work as long as they please."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Positive, Size
from ...transforms.notation.checks import checked
from .averaging import plain_descent
from .pair import Client, Federated, Server
from .rates import by_round
from .trees import GradientFunction, like, mean, minus, over, plus, select, total, wide, zeros


@method(
    "Yang et al. 2022, Anarchic Federated Learning",
    arxiv="2108.09875",
    tags=("workers",),
    kind="federated",
    learning_rate=None,
    required={"learning_rate": 0.05, "global_learning_rate": 2.0},
)
@checked()
@by_round("learning_rate", "global_learning_rate")
def anarchic_fedavg(
    learning_rate: Positive,
    global_learning_rate: Positive,
    cross_silo: bool = False,
    num_clients: Size | None = None,
) -> Federated:
    r"""Averages what clients did per step, whichever params they set out from.

    Client i, from the server's params of any earlier round, ends :math:`K_i` steps of plain descent
    at :math:`y_i` and sends :math:`G_i = (x - y_i) / K_i`; from the m that arrive in a round

    .. math::
        x \leftarrow x - \gamma \frac 1 m \sum_i G_i

    or, with `cross_silo`, from the last ones of all N clients, 0 of those that never sent one,

    .. math::
        x \leftarrow x - \gamma \frac 1 N \sum_j G_j

    Args:
      learning_rate: of the clients' steps; number or schedule of the round. It is inside what they
        send.
      global_learning_rate: gamma, likewise.
      cross_silo: the second form. Each client keeps what it sent last and sends the difference, the
        server the mean.
      num_clients: N; default what the server is started with.

    Returns:
      The pair of client and server, for `federated.simulate`, which has to be told how many steps
      each client takes.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import anarchic_fedavg
      >>> method = anarchic_fedavg(0.1, 2.0)
      >>> everyone, steps = jnp.array([[0, 1]] * 60), jnp.array([[1, 9]] * 60)
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 1.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, everyone, num_clients=2,
      ...                          local_steps=steps)
      >>> round(float(run.params), 2)
      1.0

    References:
      Yang, Zhang, Khanduri & Liu 2022 (arXiv 2108.09875), AFA-CD and AFA-CS. There is no official
      code.
    """
    eta: Any = learning_rate  # a number, see `by_round`
    gamma: Any = global_learning_rate  # a number, see `by_round`

    def run(
        broadcast: optax.Params,
        last: optax.Params,
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[optax.Params, optax.Params]:
        assert num_steps is not None
        moved = plain_descent(eta, broadcast, grad_fn, num_steps, None)
        sent = over(moved, -jnp.maximum(num_steps, 1))
        return (minus(sent, last), sent) if cross_silo else (sent, last)

    def update(
        params: optax.Params, state: Any, messages: optax.Params, clients: jax.Array
    ) -> tuple[optax.Params, Any]:
        if cross_silo:
            new = over(total(messages, clients), num_clients or state[1])
            g = plus(state[0], 1, new)
            state = select((clients >= 0).any(), (g, state[1]), state)
        else:
            g = mean(messages, clients)
        moved = like(plus(wide(params), -gamma, g), params)
        return select((clients >= 0).any(), moved, params), state

    def server_init(params: optax.Params, count: int) -> tuple[Any, ...]:
        return (zeros(params), jnp.asarray(count, jnp.int32)) if cross_silo else ()

    def client_init(params: optax.Params, client: jax.Array) -> optax.Params:
        return zeros(params) if cross_silo else ()

    return Federated(
        Client(client_init, run, None),
        Server(server_init, lambda params, state: jax.tree.map(jnp.asarray, params), update),
    )

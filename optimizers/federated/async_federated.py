"""Asynchronous federated averaging with weights that make up for the clients' speeds."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import FlowError, Positive, PositiveConstant, Size
from ...transforms.notation.checks import checked
from .averaging import plain_descent
from .pair import Client, Federated, Server
from .rates import by_round
from .trees import GradientFunction, like, plus, total, wide

NEEDED = {"fedfix": "delta", "fedbuff": "participation_rate"}

Numbers: TypeAlias = Sequence[float] | np.ndarray | jax.Array
"""One for each client."""


@checked()
def aggregation_weights(
    scheme: Literal["sync", "async", "fedfix", "fedbuff"],
    importance: Numbers,
    tau: Numbers,
    delta: PositiveConstant | None = None,
    buffer_size: Size | None = None,
    participation_rate: float | Numbers | None = None,
    identical: bool = False,
) -> Any:
    r"""What each client's work is multiplied by, so that it counts in proportion to its importance.

        sync      p_i                          all clients in every round
        async     (sum_j 1/tau_j) tau_i p_i    one client at a time;         identical: 1
        fedfix    ceil(tau_i / delta) p_i      whoever is ready, every delta
        fedbuff   p_i / q_i                    after c arrivals;             identical: 1 / c

    Args:
      scheme: when the server aggregates.
      importance: p_i of every client; their sum is 1.
      tau: the time that a round takes each client, in any unit.
      delta: of "fedfix", the time between two aggregations, in the same unit.
      buffer_size: of "fedbuff" with `identical`, c.
      participation_rate: of "fedbuff", q_i: the share of aggregations in which client i takes part.
      identical: the same weight for all of "async" and "fedbuff", by which fast clients count more.

    Returns:
      An array with a weight for each client, which need not add up to 1.

    Raises:
      ValueError: for an unknown scheme, arrays of different lengths, or without what the scheme
        needs.

    Example:
      >>> from gradchain.optimizers import aggregation_weights
      >>> aggregation_weights("fedfix", [0.5, 0.5], [1.0, 2.5], delta=1.0).tolist()
      [0.5, 1.5]

    References:
      Fraboni, Vidal, Kameni & Lorenzi 2023 (arXiv 2206.10189), as in
      Accenture/Labs-Federated-Learning.
    """
    p, times = jnp.asarray(importance, float), jnp.asarray(tau, float)
    if p.ndim != 1 or p.shape != times.shape:
        raise FlowError(
            f"aggregation_weights: importance and tau must have a number for each client; they "
            f"have the shapes {p.shape} and {times.shape}"
        )
    if scheme == "sync":
        return p
    if scheme == "async":
        return jnp.ones_like(p) if identical else jnp.sum(1 / times) * times * p
    if scheme == "fedfix":
        return jnp.ceil(times / _given(scheme, "delta", delta)) * p
    if identical:
        return jnp.full_like(p, 1 / _given(scheme, "buffer_size", buffer_size))
    return p / jnp.asarray(_given(scheme, "participation_rate", participation_rate), float)


def _given(scheme: str, name: str, value: Any) -> Any:
    if value is None:
        raise FlowError(f"aggregation_weights: the scheme {scheme!r} needs {name}=")
    return value


@method(
    "Fraboni et al. 2023, A General Theory for Federated Optimization with Asynchronous and "
    "Heterogeneous Clients Updates",
    arxiv="2206.10189",
    tags=("workers",),
    kind="federated",
    learning_rate=None,
    required={"learning_rate": 0.05, "weights": (0.5, 0.5), "num_local_steps": 4},
)
@checked()
@by_round("learning_rate", "global_learning_rate")
def async_federated(
    learning_rate: Positive,
    global_learning_rate: Positive = 1.0,
    *,
    weights: Numbers,
    num_local_steps: Size,
) -> Federated:
    r"""Adds what clients did to params that have moved on since they set out.

    Clients of the set S return in this round, each of which had received the params
    :math:`x_{\rho_i}` and ends its local steps at :math:`y_i`:

    .. math::
        x \leftarrow x + \gamma \sum_{i \in S} d_i (y_i - x_{\rho_i})

    Args:
      learning_rate: of the clients' plain descent; number or schedule of the round in which they
        set out.
      global_learning_rate: gamma; number or schedule of the round. Slow clients may have weights
        above 1, and then want a small one.
      weights: d, a number for each client, see `aggregation_weights`.
      num_local_steps: how many steps a client takes.

    Returns:
      The pair of client and server, for `federated.simulate`, which is told by `started` when each
      client set out. Neither keeps anything beside the params.

    Raises:
      ValueError: for a hyper-parameter out of range; by the server, for weights that are not one
        for each client.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import aggregation_weights, async_federated
      >>> d = aggregation_weights("async", [0.5, 0.5], tau=[1.0, 2.0])
      >>> method = async_federated(0.1, 0.2, weights=d, num_local_steps=2)
      >>> arrivals, started = jnp.array([[0], [0], [1]] * 60), jnp.arange(180)[:, None] // 3 * 3
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 3.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, arrivals, num_clients=2,
      ...                          started=started)
      >>> abs(float(run.params) - 2.0) < 0.1
      True

    References:
      Fraboni, Vidal, Kameni & Lorenzi 2023 (arXiv 2206.10189), as in
      Accenture/Labs-Federated-Learning, whose clients use SGD with momentum 0.9, renewed in every
      round.
    """

    def run(
        broadcast: optax.Params,
        state: tuple[()],
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[optax.Params, tuple[()]]:
        return plain_descent(learning_rate, broadcast, grad_fn, num_steps, num_local_steps), ()

    def server_init(params: optax.Params, num_clients: int) -> tuple[()]:
        if np.shape(weights) != (num_clients,):
            raise FlowError(
                f"async_federated: weights must be one for each of {num_clients} clients, they "
                f"have the shape {np.shape(weights)}"
            )
        return ()

    def update(
        params: optax.Params, state: tuple[()], messages: optax.Params, clients: jax.Array
    ) -> tuple[optax.Params, tuple[()]]:
        factors = jnp.take(jnp.asarray(weights, float), clients, mode="clip")
        change = total(messages, clients, factors)
        return like(plus(wide(params), global_learning_rate, change), params), state

    return Federated(
        Client(lambda params, client: (), run, num_local_steps),
        Server(server_init, lambda params, state: params, update),
    )

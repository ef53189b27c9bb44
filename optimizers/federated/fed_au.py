"""FedAU: clients that seldom take part count for more, by how seldom they did."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Positive, Size
from ...transforms.notation.checks import checked
from .averaging import plain_descent
from .pair import Client, Federated, Server
from .rates import by_round
from .trees import GradientFunction, like, plus, total, wide


class Participation(NamedTuple):
    """What is kept of every client.

    Attributes:
      rounds: since the last interval ended.
      intervals: that were recorded.
      weights: their mean, 1 before the first.
    """

    rounds: jax.Array
    intervals: jax.Array
    weights: jax.Array


class Weights(NamedTuple):
    """`init()` and `update(participated, state) -> (weights, state)`."""

    init: Any
    update: Any


@checked()
def participation_weights(num_clients: Size, cutoff: Size = 50) -> Weights:
    """The mean interval between rounds in which each client takes part, as it goes along.

    Args:
      num_clients: how many there are.
      cutoff: an interval ends after so many rounds in any case.

    Returns:
      Two pure functions: `init()`, and `update(participated, state) -> (weights, state)`, from
      booleans for all clients to their weights before this round is recorded.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import participation_weights
      >>> weights = participation_weights(2)
      >>> state = weights.init()
      >>> for _ in range(4):
      ...     _, state = weights.update(jnp.array([True, state.rounds[1] == 1]), state)
      >>> weights.update(jnp.array([True, True]), state)[0].tolist()
      [1.0, 2.0]
    """

    def init() -> Participation:
        none = jnp.zeros(num_clients, jnp.int32)
        return Participation(none, none.copy(), jnp.ones(num_clients, jnp.result_type(float)))

    def update(participated: jax.Array, state: Participation) -> tuple[jax.Array, Participation]:
        rounds, intervals, weights = state
        rounds = rounds + 1
        ends = participated | (rounds == cutoff)
        dtype = weights.dtype
        before = jnp.where(intervals == 0, 0, intervals.astype(dtype) * weights)
        mean = (before + rounds.astype(dtype)) / (intervals + 1).astype(dtype)
        count = intervals + ends.astype(intervals.dtype)
        new = Participation(jnp.where(ends, 0, rounds), count, jnp.where(ends, mean, weights))
        return weights, new

    return Weights(init, update)


@method(
    "Wang & Ji 2024, A Lightweight Method for Tackling Unknown Participation Statistics in "
    "Federated Averaging",
    arxiv="2306.03401",
    tags=("workers",),
    kind="federated",
    learning_rate=None,
    required={"learning_rate": 0.05, "num_local_steps": 4},
)
@checked()
@by_round("learning_rate", "global_learning_rate")
def fed_au(
    learning_rate: Positive,
    global_learning_rate: Positive = 1.0,
    cutoff: Size = 50,
    *,
    num_local_steps: Size,
) -> Federated:
    r"""Federated averaging where nobody knows how often each client takes part.

    With N clients, of which those of the set S take part and end their local steps at y:

    .. math::
        x \leftarrow x + \gamma \frac 1 N \sum_{i \in S} \omega_i (y_i - x)

    :math:`\omega_i` is the mean interval between the rounds in which client i took part before,
    see `participation_weights`; 1 as long as there is none.

    Args:
      learning_rate: of the clients' plain descent; number or schedule of the round.
      global_learning_rate: gamma, likewise.
      cutoff: an interval ends after so many rounds in any case, so that a weight is no larger.
      num_local_steps: how many steps a client takes.

    Returns:
      The pair of client and server, for `federated.simulate`; beside the params three numbers are
      kept of each client.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import fed_au
      >>> method = fed_au(0.1, num_local_steps=1)
      >>> seldom = jnp.array([[0, 1], [0, -1]] * 100)        # client 1 in every other round
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 3.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, seldom, num_clients=2)
      >>> abs(float(run.params) - 2.0) < 0.1
      True

    References:
      Wang & Ji 2024 (arXiv 2306.03401), as in IBM/fedau.
    """
    eta: Any = learning_rate  # a number, see `by_round`
    gamma: Any = global_learning_rate  # a number, see `by_round`

    def run(
        broadcast: optax.Params,
        state: tuple[()],
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[optax.Params, tuple[()]]:
        return plain_descent(eta, broadcast, grad_fn, num_steps, num_local_steps), ()

    def update(
        params: optax.Params, state: Participation, messages: optax.Params, clients: jax.Array
    ) -> tuple[optax.Params, Participation]:
        count = len(state.rounds)
        places = jnp.where(clients < 0, count, clients)
        participated = jnp.zeros(count, bool).at[places].set(True, mode="drop")
        weights, new = participation_weights(count, cutoff).update(participated, state)
        change = total(messages, clients, jnp.take(weights, clients, mode="clip"))
        return like(plus(wide(params), gamma / count, change), params), new

    return Federated(
        Client(lambda params, client: (), run, num_local_steps),
        Server(
            lambda params, num_clients: participation_weights(num_clients, cutoff).init(),
            lambda params, state: params,
            update,
        ),
    )

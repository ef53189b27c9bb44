"""Rounds of a federated method on one device, or wherever its arrays lie."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...transforms import FlowError, Size, checked
from .pair import Federated

Table = jax.Array | np.ndarray | Sequence[Sequence[Any]]
"""A number for each slot of each round."""


class Run(NamedTuple):
    """How a simulation ended.

    Attributes:
      params: of the server, after the last round.
      server_state: likewise.
      client_states: stacked over all clients.
      recorded: what `record` returned, stacked over the rounds; None without it.
    """

    params: optax.Params
    server_state: Any
    client_states: optax.Params
    recorded: optax.Params | None


@checked()
def simulate(
    algorithm: Federated,
    params: optax.Params,
    client_grad: Callable[..., Any],
    participants: Table,
    *,
    num_clients: Size,
    local_steps: Table | None = None,
    started: Table | None = None,
    record: Callable[[Any, Any], Any] | None = None,
) -> Run:
    """Runs a federated method for some rounds, in one compiled program.

    In each round the server's broadcast goes to those that take part, all of which run at once,
    and their messages come back in slots. What an empty slot holds has no effect.

    Args:
      algorithm: the pair of client and server.
      params: the server's, at the start.
      client_grad: `(params, client, round, step) -> gradient`, of traced integers from 0. Asked
        twice for the same, it has to use the same minibatch.
      participants: int[rounds, slots]: whose work arrives, at most once in a round; -1: nobody's.
      num_clients: how many there are.
      local_steps: int[rounds, slots]: how many steps each has taken; default what the method says.
      started: int[rounds, slots]: with which of the server's broadcasts each has set out, 0 before
        the first round; default that of the round. So many old ones are kept as are asked for.
      record: `(params, server_state) -> anything` that is to be kept of every round.

    Returns:
      Params, states and what was recorded, see `Run`.

    Raises:
      ValueError: for participants that are not there, or twice in a round, work that began after it
        ended, or numbers of steps that the method does not have.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import sgd
      >>> fedavg = federated.averaging(sgd(0.1), sgd(1.0), num_local_steps=3)
      >>> participants = jnp.array([[0, 1], [2, -1], [1, 2]])
      >>> grad = lambda x, client, round, step: x - client
      >>> run = federated.simulate(fedavg, jnp.array(9.0), grad, participants, num_clients=3,
      ...                          record=lambda params, state: params)
      >>> [round(float(x), 2) for x in run.recorded]
      [6.7, 5.42, 4.36]
    """
    there, steps, versions = _checked(algorithm, participants, num_clients, local_steps, started)
    depth = 1 if versions is None else int(np.max(np.arange(len(there))[:, None] - versions)) + 1
    rounds = jnp.arange(len(there), dtype=jnp.int32)

    @jax.jit
    def run(
        params: optax.Params,
        clients: jax.Array,
        steps: jax.Array | None,
        versions: jax.Array | None,
    ) -> Run:
        everyone = jnp.arange(num_clients, dtype=jnp.int32)
        client_states = jax.vmap(algorithm.client.init, (None, 0))(params, everyone)
        server_state = algorithm.server.init(params, num_clients)
        sent = algorithm.server.broadcast(params, server_state)
        kept = jax.tree.map(lambda x: jnp.stack([x] * depth), sent)

        def one_round(
            carry: Any, now: tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]
        ) -> Any:
            params, server_state, client_states, kept = carry
            turn, clients, steps, versions = now
            sent = algorithm.server.broadcast(params, server_state)
            kept = jax.tree.map(lambda k, x: k.at[turn % depth].set(x), kept, sent)

            def of_slot(
                client: jax.Array, count: jax.Array | None, version: jax.Array
            ) -> tuple[optax.Params, optax.Params]:
                number = jnp.maximum(client, 0)
                received = jax.tree.map(lambda k: k[version % depth], kept)
                own = jax.tree.map(lambda s: s[number], client_states)

                def grad_fn(at: optax.Params, step: jax.Array) -> optax.Params:
                    return client_grad(at, number, turn, step)

                return algorithm.client.run(received, own, grad_fn, count)

            axes = (0, None if steps is None else 0, None if versions is None else 0)
            beginning = turn if versions is None else versions
            messages, states = jax.vmap(of_slot, axes)(clients, steps, beginning)
            places = jnp.where(clients < 0, num_clients, clients)
            client_states = jax.tree.map(
                lambda all_, new: all_.at[places].set(new, mode="drop"), client_states, states
            )
            params, server_state = algorithm.server.update(params, server_state, messages, clients)
            found = None if record is None else record(params, server_state)
            return (params, server_state, client_states, kept), found

        start = params, server_state, client_states, kept
        (params, server_state, client_states, _), found = jax.lax.scan(
            one_round, start, (rounds, clients, steps, versions)
        )
        return Run(params, server_state, client_states, found)

    given = jax.tree.map(jnp.asarray, (there, steps, versions))
    return run(jax.tree.map(jnp.asarray, params), *given)


def _checked(
    algorithm: Federated,
    participants: Table,
    num_clients: int,
    local_steps: Table | None,
    started: Table | None,
) -> tuple[Any, Any, Any]:
    there = _table("participants", participants)
    if there.size and (there.max() >= num_clients or there.min() < -1):
        raise FlowError(
            f"simulate: participants must be from -1 to num_clients - 1 = {num_clients - 1}, they "
            f"are from {there.min()} to {there.max()}"
        )
    ordered = np.sort(there, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        turn, slot = np.argwhere(twice)[0]
        raise FlowError(
            f"simulate: participants has client {ordered[turn, slot]} twice in one round, {turn}"
        )
    steps = None if local_steps is None else _table("local_steps", local_steps, there.shape)
    most = algorithm.client.num_local_steps
    if steps is None and most is None:
        raise FlowError("simulate: local_steps must be given, the method has no number of its own")
    if steps is not None and (none := (steps < 1) & (there >= 0)).any():
        raise FlowError(
            f"simulate: local_steps must be at least 1 where there is a client, not "
            f"{steps[none].min()}"
        )
    if steps is not None and most is not None and (longest := steps.max(initial=0)) > most:
        raise FlowError(
            f"simulate: local_steps must be at most num_local_steps={most}, not {longest}"
        )
    if started is None:
        return there, steps, None
    versions = _table("started", started, there.shape)
    turn = np.arange(len(there))[:, None]
    versions = np.where(there < 0, turn, versions)
    wrong = (versions > turn) | (versions < 0)
    if wrong.any():
        at = int(np.argwhere(wrong)[0, 0])
        raise FlowError(
            f"simulate: started must be from 0 to the number of the round, in round {at} it is "
            f"{versions[at].tolist()}"
        )
    return there, steps, versions


def _table(name: str, value: Table, shape: tuple[int, ...] | None = None) -> Any:
    table = np.asarray(value)
    wanted = "int[rounds, slots]" if shape is None else f"integers of the shape {shape}"
    if table.ndim != 2 or table.dtype.kind not in "iu" or shape not in (None, table.shape):
        raise FlowError(f"simulate: {name} must be {wanted}, got {table.dtype}{table.shape}")
    return table.astype(np.int32)

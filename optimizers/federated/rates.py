"""Rates of federated methods that change from round to round."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import optax

from .pair import Client, Federated, Server

P = ParamSpec("P")


class Rounds(NamedTuple):
    """The state of a server whose rates follow schedules."""

    round: Any
    inner: Any


def by_round(*names: str) -> Callable[[Callable[P, Federated]], Callable[P, Federated]]:
    """Lets rates of a method be schedules of the round.

    The server counts the rounds and tells the clients its rates of that in which they set out.

    Args:
      *names: the arguments that may be schedules; nothing that is made before the first round
        depends on them.
    """

    def decorate(build: Callable[P, Federated]) -> Callable[P, Federated]:
        signature = inspect.signature(build)

        @functools.wraps(build)
        def built(*args: P.args, **kwargs: P.kwargs) -> Federated:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            schedules = {name: given.arguments[name] for name in names}
            schedules = {name: rate for name, rate in schedules.items() if callable(rate)}
            if not schedules:
                return build(*args, **kwargs)
            return _scheduled(functools.partial(build, **given.arguments), schedules)

        return built

    return decorate


def _scheduled(build: Callable[..., Federated], schedules: dict[str, Any]) -> Federated:
    begin = build(**dict.fromkeys(schedules, 1.0))

    def rates(turn: Any) -> dict[str, Any]:
        return {name: schedule(turn) for name, schedule in schedules.items()}

    def run(
        broadcast: Any, state: Any, grad_fn: Any, num_steps: jax.Array | None = None
    ) -> tuple[Any, Any]:
        received, now = broadcast
        return build(**now).client.run(received, state, grad_fn, num_steps)

    def update(
        params: optax.Params, state: Rounds, messages: optax.Params, clients: jax.Array
    ) -> tuple[optax.Params, Rounds]:
        server = build(**rates(state.round)).server
        params, inner = server.update(params, state.inner, messages, clients)
        return params, Rounds(state.round + 1, inner)

    return Federated(
        Client(begin.client.init, run, begin.client.num_local_steps),
        Server(
            lambda params, num_clients: Rounds(
                jnp.int32(0), begin.server.init(params, num_clients)
            ),
            lambda params, state: (
                begin.server.broadcast(params, state.inner),
                {name: jnp.asarray(rate) for name, rate in rates(state.round).items()},
            ),
            update,
        ),
    )

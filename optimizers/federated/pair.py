"""What a federated method is: a client and a server, and the message between them."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Client(NamedTuple):
    """What runs where the data are; pure functions.

    Attributes:
      init: `(params, client) -> state`, one for each client, kept between its rounds; `client` is
        its number, by which random methods fold their key.
      run: `(broadcast, state, grad_fn, num_steps=None) -> (message, state)`. `grad_fn(params,
        step)` is this client's gradient at its local step, 0 first; asked twice for one step, it
        has to use the same minibatch. `num_steps` may be traced; None: the method's own number.
      num_local_steps: that number, None where the method has none.
    """

    init: Callable[[Any, Any], Any]
    run: Callable[..., tuple[Any, Any]]
    num_local_steps: int | None


class Server(NamedTuple):
    """What runs where the params are; pure functions.

    Attributes:
      init: `(params, num_clients) -> state`.
      broadcast: `(params, state) -> pytree`: what each participant receives.
      update: `(params, state, messages, clients) -> (params, state)`, with the messages stacked on
        a leading axis of slots and `clients` int[slots], -1 for an empty slot, whose message
        may hold anything.
    """

    init: Callable[[Any, int], Any]
    broadcast: Callable[[Any, Any], Any]
    update: Callable[..., tuple[Any, Any]]


class Federated(NamedTuple):
    """A federated method; see `simulate` for how the two work together."""

    client: Client
    server: Server

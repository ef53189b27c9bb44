"""Federated averaging of any two transformations."""

from typing import Any

import jax
import optax

from ...transforms import Size
from ...transforms.notation.checks import checked
from .pair import Client, Federated, Server
from .trees import GradientFunction, gradient, like, local_steps, mean, minus, select, times, wide


@checked()
def averaging(
    client_tx: optax.GradientTransformation,
    server_tx: optax.GradientTransformation,
    num_local_steps: Size,
) -> Federated:
    r"""Clients take local steps by one optimizer, the server steps along their mean by another.

    .. math::
        y_i = x \text{ after K steps of the client's optimizer}, \qquad
        x \leftarrow \text{the server's optimizer with } g = \operatorname{mean}_i (x - y_i)

    The client's optimizer starts anew in every round. With SGD on both sides, at rate 1 on the
    server, it is FedAvg; with Adam on the server FedAdam.

    Args:
      client_tx: any transformation that needs no further inputs.
      server_tx: likewise.
      num_local_steps: K.

    Returns:
      The pair of client and server, for `simulate`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import sgd
      >>> method = federated.averaging(sgd(0.5), sgd(1.0), num_local_steps=2)
      >>> everyone = jnp.array([[0, 1]] * 20)
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 3.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, everyone, num_clients=2)
      >>> round(float(run.params), 3)
      2.0

    References:
      McMahan et al. 2017, Communication-Efficient Learning of Deep Networks from Decentralized Data
      (arXiv 1602.05629). Reddi et al. 2021, Adaptive Federated Optimization (arXiv 2003.00295).
    """

    def run(
        broadcast: optax.Params,
        state: tuple[()],
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[optax.Params, tuple[()]]:
        params = broadcast

        def step(
            k: int | jax.Array, carry: tuple[optax.Params, optax.OptState]
        ) -> tuple[optax.Params, optax.OptState]:
            y, inner = carry
            at = like(y, params)
            updates, inner = client_tx.update(like(gradient(grad_fn, y, k, params), at), inner, at)
            return wide(optax.apply_updates(y, wide(updates))), inner

        start = wide(params), client_tx.init(params)
        end = local_steps(step, start, num_steps, num_local_steps)[0]
        return minus(wide(params), end), ()

    def update(
        params: optax.Params, state: optax.OptState, messages: optax.Params, clients: jax.Array
    ) -> tuple[optax.Params, optax.OptState]:
        g = like(mean(messages, clients), params)
        updates, new = server_tx.update(g, state, params)
        found = optax.apply_updates(params, updates), new
        return select((clients >= 0).any(), found, (params, state))

    return Federated(
        Client(lambda params, client: (), run, num_local_steps),
        Server(
            lambda params, num_clients: server_tx.init(params),
            lambda params, state: params,
            update,
        ),
    )


def plain_descent(
    rate: Any,
    params: optax.Params,
    grad_fn: GradientFunction,
    num_steps: jax.Array | None,
    num_local_steps: int | None,
) -> optax.Params:
    """How far a client goes by steps of plain descent."""

    def step(k: int | jax.Array, y: optax.Params) -> optax.Params:
        g = gradient(grad_fn, y, k, params)
        return jax.tree.map(lambda a, b: a - b, y, times(rate, g))

    start = wide(params)
    return minus(local_steps(step, start, num_steps, num_local_steps), start)

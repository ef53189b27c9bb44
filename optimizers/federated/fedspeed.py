"""FedSpeed: sharpness-aware local steps that are drawn back to the server's params."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Limit, NonNegativeConstant, Positive, PositiveConstant, Share, Size
from ...transforms.notation.checks import checked
from ...transforms.notation.roots import relative_norm
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


class Duals(NamedTuple):
    """The server's state: the mean of all clients' duals, the round, and how many clients."""

    mean: optax.Params
    round: jax.Array
    clients: jax.Array


class Upload(NamedTuple):
    """Where a client's steps ended, how far that is, and its dual."""

    end: optax.Params
    moved: optax.Params
    dual: optax.Params


@method(
    "Sun et al. 2023, FedSpeed: Larger Local Interval, Less Communication Round, and Higher "
    "Generalization Accuracy",
    arxiv="2302.10429",
    tags=("workers", "flat-minima", "bounded"),
    kind="federated",
    learning_rate=None,
    required={"num_local_steps": 4},
)
@checked()
@by_round("learning_rate")
def fedspeed(
    learning_rate: Positive = 0.1,
    prox: NonNegativeConstant = 0.1,
    rho: NonNegativeConstant = 0.1,
    alpha: Share = 1.0,
    weight_decay: NonNegativeConstant = 1e-3,
    max_norm: Limit = 10.0,
    *,
    num_local_steps: Size,
    round_decay: PositiveConstant = 0.998,
    normalize: bool = True,
    server_dual: Literal["all", "active"] = "all",
) -> Federated:
    r"""Local steps along gradients of perturbed points, with a proximal term and a dual variable.

    Client i takes steps from y = x, with one minibatch for both gradients, and c clips to a norm
    over all leaves:

    .. math::
        g_1 &= \nabla f_i(y), \qquad
        g_2 = \nabla f_i\bigl(y + \rho g_1 / (\|g_1\| + 10^{-7})\bigr) \\
        q &= (1 - \alpha) g_1 + \alpha g_2 + \mu (h_i - x), \qquad
        y \leftarrow y - \eta \bigl(c(q) + (\lambda + \mu) y\bigr)

    then, for N clients of which those in S take part,

    .. math::
        h_i \leftarrow h_i + y_i - x, \qquad
        x \leftarrow \operatorname{mean}_{i \in S} y_i + \frac 1 N \sum_j h_j

    Args:
      learning_rate: eta, in the first round; number or schedule of the round.
      prox: mu, 1 / lambda of the paper.
      rho: length of the ascent.
      alpha: weight of the gradient at the perturbed point.
      weight_decay: lambda, outside the clip.
      max_norm: what gradient and correction are clipped to; infinite does not clip.
      num_local_steps: how many steps a client takes.
      round_decay: factor of eta from round to round.
      normalize: of the ascent; the paper's is rho g_1.
      server_dual: "all" is the above, "active" the paper's mean over S alone.

    Returns:
      The pair of client and server, for `federated.simulate`; each client keeps one tree of the
      params' size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import federated
      >>> from gradchain.optimizers import fedspeed
      >>> method = fedspeed(0.3, rho=0.0, weight_decay=0.0, prox=1.0, num_local_steps=10)
      >>> everyone = jnp.array([[0, 1]] * 40)
      >>> grad = lambda x, client, round, step: x - jnp.array([1.0, 3.0])[client]
      >>> run = federated.simulate(method, jnp.array(0.0), grad, everyone, num_clients=2)
      >>> round(float(run.params), 2)
      2.0

    References:
      Sun, Shen, Huang, Ding & Tao 2023 (arXiv 2302.10429). As woodenchild95/FL-Simulator, unlike
      the paper, we normalise the ascent, clip, decay, and take the duals' mean over all clients.
    """
    eta: Any = learning_rate  # a number, see `by_round`

    def run(
        broadcast: tuple[optax.Params, jax.Array],
        dual: optax.Params,
        grad_fn: GradientFunction,
        num_steps: jax.Array | None = None,
    ) -> tuple[Upload, optax.Params]:
        params, turn = broadcast
        start = wide(params)
        pull = times(prox, minus(dual, start))
        rate = eta * jnp.asarray(round_decay, float) ** jnp.asarray(turn, float)

        def step(k: int | jax.Array, y: optax.Params) -> optax.Params:
            first = gradient(grad_fn, y, k, params)
            size = 1 / (_norm(first) + 1e-7) if normalize else 1
            second = gradient(grad_fn, plus(y, rho * size, first), k, params)
            q = plus(plus(times(1 - alpha, first), alpha, second), 1, pull)
            q = times(jnp.minimum(1, max_norm / (_norm(q) + 1e-6)), q)
            return plus(y, -rate, plus(q, weight_decay + prox, y))

        end = local_steps(step, start, num_steps, num_local_steps)
        moved = minus(end, start)
        new = plus(dual, 1, moved)
        return Upload(end, moved, new), new

    def update(
        params: optax.Params, state: Duals, messages: Upload, clients: jax.Array
    ) -> tuple[optax.Params, Duals]:
        there = (clients >= 0).any()
        duals = plus(state.mean, 1, over(total(messages.moved, clients), state.clients))
        added = duals if server_dual == "all" else mean(messages.dual, clients)
        found = like(plus(mean(messages.end, clients), 1, added), params)
        new = Duals(duals, state.round + 1, state.clients)
        return select(there, found, params), new

    def server_init(params: optax.Params, num_clients: int) -> Duals:
        return Duals(zeros(params), jnp.int32(0), jnp.asarray(num_clients, jnp.int32))

    return Federated(
        Client(lambda params, client: zeros(params), run, num_local_steps),
        Server(server_init, lambda params, state: (params, state.round), update),
    )


def _norm(tree: optax.Params) -> jax.Array:
    size, relative = relative_norm(jax.tree.leaves(tree))
    return size * relative

"""FZooS: federated zeroth-order optimization by gradients of surrogates."""

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    NonNegative,
    Signal,
    chain,
    flow,
    lift_tree,
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.notation.values import Leaves, fit_scalar


@method(
    "Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate "
    "Gradients",
    arxiv="2308.04077",
    tags=("workers", "tracked-mean"),
    learning_rate=0.01,
)
@transformation()
def fzoos_client(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    gamma: NonNegative = 1.0,
    base: optax.GradientTransformation | None = None,
) -> Flow:
    r"""A client's steps along surrogate gradients, corrected by what the server knows.

    At its local step t, with the gradient g of its own surrogate, and those of the server's and of
    its own of the last round at the same point:

    .. math::
        d = g + \frac \gamma t (g_{\text{server}} - g_{\text{client}})

    and d goes to the base optimizer. The state starts anew in every round.

    Args:
      learning_rate: number or schedule.
      gamma: strength of the correction.
      base: the direction that d is sent through, without a rate; default Adam's.

    Returns:
      The optimizer; its state is that of the base. Its update takes the extra arguments
      `server_gradient` and `client_gradient`; without both, as in the first round, nothing is
      corrected.

    What stands around it in a round, in vectors of params and functions of values alone:
    `nearest_queries` chooses from a client's history, `trajectory_gradient_surrogate` fits g to it,
    `active_queries` says where to ask for further values after a step; at the end
    `random_fourier_features` fits what the client sends, and the server's surrogate is that with
    the mean of what it receives. Queries, steps and means are the training loop's.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import fzoos_client
      >>> opt, g = fzoos_client(1.0, base=optax.identity()), jnp.array([1.0])
      >>> opt.update(g, opt.init(g), g, server_gradient=3 * g, client_gradient=g)[0].tolist()
      [-3.0]

    References:
      Shu et al. 2023 (arXiv 2308.04077), with the length gamma / t of shuyao95/FZooS. Its server
      keeps the old params where the mean of the new ones is no better, which takes values of all
      clients; that is left to the loop.
    """

    def step(
        g: Signal, server_gradient: Signal | None = None, client_gradient: Signal | None = None
    ) -> Signal:
        return _corrected(g, server_gradient, client_gradient, scheduled(gamma) / step_count())

    direction = scale_by_adam() if base is None else base
    return chain(flow(step, name="correction"), direction, scale_by_learning_rate(learning_rate))


def _corrected_of(g: Leaves, server: Leaves, client: Leaves, share: jax.Array) -> Leaves:
    if server is None and client is None:
        return g
    if not isinstance(server, Leaves) or not isinstance(client, Leaves):
        raise ValueError("server_gradient and client_gradient must both be trees like the params")
    return g.map(
        lambda x, s, c: x + fit_scalar(jnp.asarray(share), x.dtype) * (s - c), server, client
    )


_corrected = lift_tree(_corrected_of, "correction", out=0)

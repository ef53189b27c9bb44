"""DeMo."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Mask,
    NonNegative,
    Signal,
    Size,
    chain,
    decay_weights,
    flow,
    scale_by_learning_rate,
    scheduled,
    sign,
    transformation,
)
from ...transforms.compression import chunked_dct, compress_with_error_feedback


@method(
    "Peng et al. 2024, DeMo: Decoupled Momentum Optimization",
    arxiv="2411.19870",
    tags=("workers", "momentum", "sign", "decoupled-decay"),
    learning_rate=0.01,
)
@transformation()
def demo(
    learning_rate: optax.ScalarOrSchedule,
    decay: Decay = 0.999,
    topk: Size = 32,
    chunk_size: Size = 64,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""Each worker keeps its momentum and sends the fast-moving part of it.

    With F the cosine transform in chunks, and C what is left of its coefficients when in each chunk
    the largest are kept, worker r:

    .. math::
        D_r &\leftarrow \beta D_r + \eta g_r, \qquad q_r = C(F D_r), \qquad
        D_r \leftarrow D_r - F^{-1} q_r \\
        \theta &\leftarrow (1 - \eta \lambda) \theta
            - \eta \operatorname{sign}\bigl(F^{-1} \operatorname{mean}_r q_r\bigr)

    The mean of a coefficient is that over the workers that sent it. Each worker passes its own
    gradient, inside `jax.shard_map` over a mesh with the axis or under `jax.vmap` with a name for
    it; the updates are the same on all.

    Args:
      learning_rate: eta; number or schedule. It is inside the momentum: a schedule rescales new
        gradients alone.
      decay: beta, of the momentum, in [0, 1).
      topk: coefficients that are sent of each chunk. Of all of them nothing is kept, and it is the
        sign of the mean gradient.
      chunk_size: longest side of a chunk: vectors are cut into chunks, matrices into blocks, of the
        largest divisor of their length that is not above it; other tensors are the matrices of
        their first axis.
      weight_decay: lambda, decoupled, on the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; its state is one buffer of the params' size, each worker's own.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import demo
      >>> opt, x = demo(0.5, axis_name="workers"), jnp.zeros(2)
      >>> step = lambda g: opt.update(g, opt.init(x), x)[0]
      >>> own = jnp.array([[1.0, 2.0], [3.0, -5.0]])         # the gradients of two workers
      >>> jax.jit(jax.vmap(step, axis_name="workers"))(own)[0].tolist()
      [-0.5, 0.5]

    References:
      Peng, Quesnelle & Kingma 2024 (arXiv 2411.19870). In the paper the momentum is one of plain
      gradients and the mean one over all workers; as bloc97/DeMo we put the rate inside and average
      over the senders. That code takes vectors and matrices alone.
    """

    def step(g: Signal) -> Signal:
        sent = compress_with_error_feedback(chunked_dct(topk, chunk_size), axis_name, decay=decay)
        return sign(scheduled(learning_rate) * g >> sent)

    return chain(
        flow(step, name="momentum"),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )

"""PowerSGD."""

from collections.abc import Mapping
from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Count,
    Decay,
    DType,
    Flow,
    Key,
    Limit,
    NonNegative,
    Signal,
    Size,
    chain,
    decay_weights,
    flow,
    handed_on,
    scale_by_learning_rate,
    trace,
    transformation,
)
from ...transforms.compression import compress_with_error_feedback, power_iteration


@transformation()
def scale_by_power_sgd(
    rank: Size = 1,
    min_compression_rate: Limit = 2.0,
    num_iters_per_step: Size = 1,
    start_compressing_after_num_steps: Count = 100,
    variant: Literal["alternating", "paper"] = "alternating",
    key: Key = 0,
    init_factors: Mapping[str, optax.Params] | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""The mean of the workers' gradients in low rank, with error feedback.

    Worker i of W sends matrices of gradient and error, M_i = g_i + E_i, as factors of low rank that
    are the same on all workers and follow the leading singular vectors from step to step. In turn,
    from one iteration to the next,

    .. math::
        P \leftarrow \operatorname{orth}(P), \quad q_i = M_i^T P, \quad
        M_i \leftarrow M_i - P q_i^T, \quad Q \leftarrow \sum_i q_i, \quad
        A \leftarrow A + P Q^T / W

    and the same with the factors exchanged; u = A, and E_i is what is left of M_i.

    Args:
      rank: columns of the factors.
      min_compression_rate: leaves that would shrink by no more than this, vectors and scalars are
        averaged as they are; for "paper" vectors and scalars alone.
      num_iters_per_step: iterations in each step.
      start_compressing_after_num_steps: so many steps of plain averaging at first.
      variant: "alternating" as in the authors' package, or "paper": both factors in each step,
        P <- orth(sum M_i Q), Q <- mean M_i^T P, A = P Q^T, and E_i = M_i - A.
      key: seed or key of the first factors, the same on all workers.
      init_factors: {"p": tree, "q": tree} in their place, None at leaves that are not compressed;
        either may be missing.
      axis_name: the axis along which the workers lie; None: there is one.

    References:
      Vogels, Karimireddy & Jaggi 2019 (arXiv 1905.13727); epfml/powersgd, the package for
      "alternating", its paper-code for "paper". The package takes the norm of all factors of one
      shape together at rank 1; ours is that of each.
    """
    factors = power_iteration(
        rank, num_iters_per_step, min_compression_rate, variant, key, init_factors
    )
    return compress_with_error_feedback(
        factors, axis_name, uncompressed_steps=start_compressing_after_num_steps
    )


@method(
    "Vogels et al. 2019, PowerSGD: Practical Low-Rank Gradient Compression for Distributed "
    "Optimization",
    arxiv="1905.13727",
    tags=("workers", "low-rank", "momentum", "nesterov"),
    learning_rate=0.02,
    small_model={"rank": 2, "start_compressing_after_num_steps": 2, "min_compression_rate": 0.5},
)
@transformation()
def power_sgd(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 1,
    momentum: Decay = 0.9,
    nesterov: bool | Literal["paper"] = True,
    weight_decay: NonNegative = 0.0,
    min_compression_rate: Limit = 2.0,
    num_iters_per_step: Size = 1,
    start_compressing_after_num_steps: Count = 100,
    variant: Literal["alternating", "paper"] = "alternating",
    key: Key = 0,
    init_factors: Mapping[str, optax.Params] | None = None,
    axis_name: str | None = None,
    mu_dtype: DType | None = None,
) -> Flow:
    """SGD on gradients that are averaged in low rank; the rule is that of `scale_by_power_sgd`.

    Each worker passes its own gradient, inside `jax.shard_map` over a mesh with the axis or under
    `jax.vmap` with a name for it; the updates are the same on all.

    Args:
      learning_rate: number or schedule.
      rank, min_compression_rate, num_iters_per_step, start_compressing_after_num_steps, variant,
        key, init_factors, axis_name: see `scale_by_power_sgd`.
      momentum: of a heavy ball, undamped.
      nesterov: looks ahead along the momentum, d + momentum m; "paper": d + m, as the code of the
        paper does.
      weight_decay: added to the mean, times the params; it is not compressed.
      mu_dtype: storage of the momentum; default at least float32.

    Returns:
      The optimizer; its state is a buffer of the params' size for the error, each worker's own, one
      for the momentum, and the factors.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import power_sgd
      >>> opt = power_sgd(0.1, num_iters_per_step=2, momentum=0.0,
      ...                 start_compressing_after_num_steps=0)
      >>> x = jnp.outer(jnp.arange(1.0, 9.0), jnp.array([1.0] * 8))    # of rank 1
      >>> opt.update(x, opt.init(x), x)[0][:3, 0].round(3).tolist()
      [-0.10000000149011612, -0.20000000298023224, -0.30000001192092896]
    """

    def ahead(g: Signal) -> Signal:
        return g + (g >> trace(momentum, dtype=mu_dtype))

    usual = trace(momentum, bool(nesterov), dtype=mu_dtype)
    pushed = flow(ahead, name="ahead") if nesterov == "paper" else usual
    return chain(
        handed_on(scale_by_power_sgd),
        decay_weights(weight_decay),
        pushed,
        scale_by_learning_rate(learning_rate),
    )

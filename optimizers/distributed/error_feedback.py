"""EF21: differences are compressed, and nothing is lost; and the classic form of error feedback."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Mask,
    NonNegative,
    Size,
    chain,
    decay_weights,
    handed_on,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.compression import compress_differences, compress_with_error_feedback, top_k
from ...transforms.compression.compressor import Compression, Weights


@transformation()
def scale_by_ef21(
    k: Size = 1,
    weights: Weights | None = None,
    init: Literal["full", "compressed", "zero"] = "full",
    per_leaf: bool = False,
    compressor: Compression | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""The gradient as all know it of whom only compressed differences are sent.

    Worker i of n, with gradient g_i, weight w_i and a compressor C, on the estimate G_i:

    .. math::
        a_i = \frac{g_i}{n w_i}, \qquad G_i \leftarrow G_i + C(a_i - G_i), \qquad u = \sum_i w_i G_i

    At first G_i = a_i, so that the first step is one of plain descent.

    Args:
      k: entries that are sent, of the default compressor, top-k.
      weights: w, a positive number for each worker, such as the smoothness of its loss (EF21-W);
        scaled to sum 1. None: equal ones.
      init: "full" sends the first gradient as it is; "compressed" and "zero" compress it as the
        others, from G_i = 0.
      per_leaf: top-k of every leaf; else of the whole tree.
      compressor: C in place of top-k: one of `transforms.compression`, or a function from a tree to
        a tree, whose results are sent in full.
      axis_name: the axis along which the workers lie; None: there is one.

    References:
      Richtarik, Sokolov & Fatkhullin 2021, EF21 (arXiv 2106.05203), after
      IgorSokoloff/ef21_experiments_source_code: one top-k of all leaves, and the full first
      gradient. Richtarik, Gasanov & Burlachenko 2024, Error Feedback Reloaded (arXiv 2402.10774),
      for the weights, of which there is no public code.
    """
    chosen = top_k(k, per_leaf=per_leaf) if compressor is None else compressor
    return compress_differences(chosen, axis_name, weights=weights, start=init)


@method(
    "Richtarik et al. 2021, EF21: A New, Simpler, Theoretically Better, and Practically Faster "
    "Error Feedback",
    arxiv="2106.05203",
    tags=("workers",),
    learning_rate=0.05,
    small_model={"k": 8},
)
@transformation()
def error_feedback(
    learning_rate: optax.ScalarOrSchedule,
    k: Size = 1,
    weights: Weights | None = None,
    init: Literal["full", "compressed", "zero"] = "full",
    per_leaf: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    compressor: Compression | None = None,
    axis_name: str | None = None,
) -> Flow:
    """EF21, and with weights EF21-W: descent on what compressed differences add up to.

    The rule is that of `scale_by_ef21`. Each worker passes its own gradient, inside `jax.shard_map`
    over a mesh with the axis or under `jax.vmap` with a name for it; the updates are the same on
    all.

    Args:
      learning_rate: number or schedule, outside the memory: a schedule does not rescale it.
      k, weights, init, per_leaf, compressor, axis_name: see `scale_by_ef21`.
      weight_decay: added to the direction, times the params.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is what is known of the worker, and of the mean: two buffers of the
      params' size.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there, or
        weights that are not one for each worker.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import error_feedback
      >>> opt, x = error_feedback(0.5, k=1, axis_name="workers"), jnp.zeros(2)
      >>> step = lambda g: opt.update(g, opt.init(x), x)[0]
      >>> own = jnp.array([[1.0, 2.0], [3.0, 0.0]])          # the gradients of two workers
      >>> jax.jit(jax.vmap(step, axis_name="workers"))(own)[0].tolist()
      [-1.0, -0.5]
    """
    return chain(
        handed_on(scale_by_ef21),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )


@method(
    "Karimireddy et al. 2019, Error Feedback Fixes SignSGD and other Gradient Compression Schemes",
    arxiv="1901.09847",
    tags=("workers",),
    learning_rate=0.05,
    small_model={"k": 8},
)
@transformation()
def error_feedback_14(
    learning_rate: optax.ScalarOrSchedule,
    k: Size = 1,
    per_leaf: bool = False,
    compressor: Compression | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""Classic error feedback: what was not sent is added to the next step.

    .. math::
        p_i = \eta g_i + e_i, \qquad e_i \leftarrow p_i - C(p_i), \qquad
        \theta \leftarrow \theta - \frac 1 n \sum_i C(p_i)

    Args:
      learning_rate: eta; number or schedule, inside the memory: what was not sent keeps the rate of
        its step.
      k, per_leaf, compressor, axis_name: see `scale_by_ef21`.

    Returns:
      The optimizer; its state is one buffer of the params' size.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import error_feedback_14
      >>> opt, x = error_feedback_14(0.5, k=1), jnp.array([2.0, 3.0])
      >>> first, state = opt.update(x, opt.init(x), x)
      >>> second, state = opt.update(x, state, x)
      >>> first.tolist(), second.tolist()
      ([0.0, -1.5], [-2.0, 0.0])

    References:
      Seide et al. 2014, 1-bit stochastic gradient descent; Karimireddy et al. 2019 (arXiv
      1901.09847), whose compressor is `scaled_sign`.
    """
    chosen = top_k(k, per_leaf=per_leaf) if compressor is None else compressor
    return chain(
        scale_by_learning_rate(learning_rate),
        compress_with_error_feedback(chosen, axis_name),
    )

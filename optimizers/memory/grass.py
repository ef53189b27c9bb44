"""Grass."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Number,
    Period,
    Sampler,
    Size,
    chain,
    decay_weights,
    every,
    handed_on,
    leaf_where,
    low_rank,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.subspaces import Selection, selected_slices


@transformation()
def scale_by_grass(
    rank: Size = 128,
    update_interval: Period = 200,
    scale: Number = 0.25,
    selection: Selection = "topr",
    reset_state: bool = True,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    key: Key = 0,
    project: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam on some rows, or columns, of each matrix.

        P_t chooses `rank` slices of g_t at t = 1, k + 1, 2k + 1, ..., else P_{t-1}
        L_t = P_t^T g_t                                 (m <= n; g_t P_t otherwise)
        u_t = scale P_t adam(L_t)

    Slices are counted along the shorter side. Leaves that are not projected get plain Adam, without
    the scale.

    Args:
      rank: slices that move.
      update_interval: k, steps between two choices.
      scale: factor of the projected leaves' updates.
      selection: how they are chosen, and with what weights: see `transforms.selected_slices`.
      reset_state: start the moments, and their bias correction, anew whenever P changes.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      key: seed or key of the draws.
      project: leaves to be projected: a predicate of a leaf, a tree of booleans, or a function of
        the params; default matrices both of whose sides are longer than `rank`.
      sampler: `(key, count, params) -> tree` of the indices of the slices, empty at leaves that are
        not projected, in place of random ones; count is 0 at the first step.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Raises:
      FlowError: in `init`, for a leaf that `project` selects and that has fewer slices than `rank`.

    References:
      Muhamed et al. 2024, Grass: Compute Efficient Low-Memory LLM Training with Structured Sparse
      Gradients (arXiv 2406.17660). No code was published; that the moments start anew with a choice
      is the reading of others, and the default.
    """
    wide = leaf_where(lambda leaf: leaf.ndim == 2 and min(leaf.shape) > rank)
    slices = selected_slices(rank, selection, key=key, sampler=sampler)
    return low_rank(
        handed_on(scale_by_adam),
        every(update_interval, slices),
        moments="reset" if reset_state else "keep",
        scale=scale,
        select=wide if project is None else project,
    )


@method(
    "Muhamed et al. 2024, Grass: Compute Efficient Low-Memory LLM Training with Structured Sparse "
    "Gradients",
    arxiv="2406.17660",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"rank": 2, "update_interval": 10, "scale": 1.0},
)
@transformation()
def grass(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 128,
    update_interval: Period = 200,
    scale: Number = 0.25,
    selection: Selection = "topr",
    reset_state: bool = True,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    key: Key = 0,
    project: Mask | None = None,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Grass; the rule is that of `scale_by_grass`.

    Args:
      learning_rate: number or schedule.
      rank, update_interval, scale, selection, reset_state, b1, b2, eps, key, project, sampler: see
        `scale_by_grass`.
      weight_decay: decoupled decay, multiplied by the rate; of all leaves, whole.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_grass`.

    Returns:
      The optimizer. Of a matrix it stores two moments of `rank` slices, and their numbers.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import grass
      >>> opt = grass(0.5, rank=1, scale=1.0)
      >>> params = jnp.array([[3.0, -4.0], [1.0, 1.0]])
      >>> print(opt.update(params, opt.init(params))[0].round(3) + 0.0)
      [[-0.5  0.5]
       [ 0.   0. ]]
    """
    return chain(
        handed_on(scale_by_grass),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )

"""FRUGAL."""

from typing import Literal

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
    Share,
    chain,
    decay_weights,
    every,
    flow,
    handed_on,
    leaf_where,
    low_rank,
    scale_by_adam,
    scale_by_learning_rate,
    sign,
    svd_basis,
    transformation,
)
from ...transforms.directions import scale_by_lion
from ...transforms.subspaces import BlockOrder, active_leaves, random_basis, random_coordinates

Projection = Literal["blocks", "columns", "rows", "randk", "svd", "random"]
StateFreeRule = Literal["sign_sgd", "sgd", "no"]
Base = Literal["adamw", "lion", "sgd"]
AXES = {"columns": 1, "rows": 0, "randk": None}


@transformation()
def scale_by_frugal(
    density: Share = 0.25,
    update_interval: Period = 200,
    projection: Projection = "blocks",
    block_order: BlockOrder = "random",
    state_free_rule: StateFreeRule = "sign_sgd",
    state_free_scale: Number = 1.0,
    projected_scale: Number = 1.0,
    reset_state: bool = True,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    base: Base = "adamw",
    key: Key = 0,
    project: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam on a share of each gradient, a rule without state on the rest.

        L_t = P_t^T g_t,   E_t = g_t - P_t L_t
        u_t = projected_scale (P_t adam(L_t) + state_free_scale sign(E_t))

    P is chosen anew at t = 1, k + 1, 2k + 1, ... Leaves that are not split get the base rule.

    Args:
      density: share of the gradient that has state.
      update_interval: k.
      projection: what P chooses: "blocks" whole leaves, "columns", "rows" or "randk" entries at
        random, "svd" leading singular vectors, "random" a random orthonormal basis.
      block_order: how blocks take turns: "random", "ascending", "descending", "mirror".
      state_free_rule: "sign_sgd" as above, "sgd" moves along E_t, "no" drops it.
      state_free_scale: factor of the part without state; 1 for pre-training, 0.1 for fine-tuning.
      projected_scale: factor of both parts of the leaves that are split.
      reset_state: start the moments, and their bias correction, anew whenever P changes. Blocks
        always do.
      b1, b2, eps: of the base rule; see `scale_by_adam`, `scale_by_lion`.
      base: "adamw", "lion" or "sgd" (the plain gradient).
      key: seed or key of the choices.
      project: leaves to be split: a predicate of a leaf, a tree of booleans, or a function of the
        params; default the matrices.
      sampler: `(key, count, params) -> tree` of indices or bases in place of the random ones of
        "columns", "rows", "randk" and "random"; count is 0 at the first step.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Zmushko et al. 2024, FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for
      Scalable Training (arXiv 2411.07837), and the authors' code, which starts the state of all
      blocks anew whatever `reset_state` says. The moments of inactive blocks, which that code
      frees, are kept here as zeros: shapes are static.
    """

    def rank(size: int) -> int:
        return round(density * size)

    if projection == "blocks":
        basis = active_leaves(density, block_order, key)
    elif projection == "svd":
        basis = svd_basis(rank)
    elif projection == "random":
        basis = random_basis(rank, key=key, sampler=sampler)
    else:
        basis = random_coordinates(density, AXES[projection], key, sampler)
    inner = {
        "adamw": lambda: handed_on(scale_by_adam),
        "lion": lambda: handed_on(scale_by_lion),
        "sgd": lambda: flow(lambda g: g),
    }[base]()
    residual = {
        "sign_sgd": flow(lambda e: state_free_scale * sign(e)),
        "sgd": flow(lambda e: state_free_scale * e),
        "no": None,
    }[state_free_rule]
    chosen = leaf_where(lambda leaf: leaf.ndim == 2 and leaf.size > 0)
    return low_rank(
        inner,
        every(update_interval, basis),
        residual=residual,
        moments="reset" if reset_state or projection == "blocks" else "keep",
        scale=projected_scale,
        select=chosen if project is None else project,
    )


@method(
    "Zmushko et al. 2024, FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for "
    "Scalable Training",
    arxiv="2411.07837",
    tags=("low-memory", "low-rank", "sign", "partitioned"),
    small_model={"update_interval": 10, "projection": "columns", "density": 0.5},
)
@transformation()
def frugal(
    learning_rate: optax.ScalarOrSchedule,
    density: Share = 0.25,
    update_interval: Period = 200,
    projection: Projection = "blocks",
    block_order: BlockOrder = "random",
    state_free_rule: StateFreeRule = "sign_sgd",
    state_free_scale: Number = 1.0,
    projected_scale: Number = 1.0,
    reset_state: bool = True,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    base: Base = "adamw",
    key: Key = 0,
    project: Mask | None = None,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """FRUGAL; the rule is that of `scale_by_frugal`.

    Args:
      learning_rate: number or schedule.
      density, update_interval, projection, block_order, state_free_rule, state_free_scale,
        projected_scale, reset_state, b1, b2, eps, base, key, project, sampler: see
        `scale_by_frugal`.
      weight_decay: decoupled decay, multiplied by the rate; of all leaves, whole.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_frugal`.

    Returns:
      The optimizer; its state is about 2 density times the size of the params ("blocks": twice).

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import frugal
      >>> opt = frugal(0.5, projection="svd", density=0.5, weight_decay=0.0)
      >>> params = jnp.diag(jnp.array([4.0, 2.0]))
      >>> print(opt.update(params, opt.init(params))[0].round(3) + 0.0)
      [[-0.5  0. ]
       [ 0.  -0.5]]
    """
    return chain(
        handed_on(scale_by_frugal),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )

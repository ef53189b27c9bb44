"""Fira."""

import optax

from ...registry import method
from ...transforms import (
    AtLeastOne,
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    Period,
    Signal,
    Size,
    chain,
    decay_weights,
    every,
    flow,
    handed_on,
    leaf_where,
    merge,
    named,
    saturate,
    scale_by_adam,
    scale_by_learning_rate,
    split,
    sqrt,
    step_count,
    svd_basis,
    transformation,
)
from ...transforms.accumulate import one_minus_power
from ...transforms.shape import limit_norm_growth
from ...transforms.subspaces import OneSide, in_subspace, lengthening, unproject


@transformation()
def scale_by_fira(
    rank: Size = 8,
    update_interval: Period = 200,
    scale: Number = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    max_growth: AtLeastOne = 1.01,
    projection: OneSide = "std",
    project: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam in the leading singular directions, the rest of the gradient lengthened as Adam does it.

        P_t from the SVD of g_t at t = 1, k + 1, 2k + 1, ..., else P_{t-1}
        L_t = g_t P_t^T                                 (m >= n; P_t^T g_t otherwise)
        N_t = m_t / (sqrt(v_t) + eps)
        E_t = (g_t - scale L_t P_t) |N_t| / (|L_t| + 1e-8)      norms row by row (column by column)
        u_t = sqrt(1 - b2^t) / (1 - b1^t) (scale N_t P_t + limited(E_t))

    with m and v the averages of L and L^2, which stay as they are when P changes, and `limited` as
    `transforms.shape.limit_norm_growth`: from one step to the next the norm of E grows by a factor
    of `max_growth` at most. Leaves that are not projected get plain Adam.

    Args:
      rank: singular vectors kept.
      update_interval: k, steps between two SVDs.
      scale: factor of what comes back from the subspace, of projected gradients too.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, before bias correction.
      max_growth: see above.
      projection: "std", "reverse_std", "left" or "right"; see `transforms.svd_basis`.
      project: leaves to be projected: a predicate of a leaf, a tree of booleans, or a function of
        the params; default matrices both of whose sides are longer than `rank`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Chen et al. 2024, Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?
      (arXiv 2410.01623). We follow the authors' package, in which the ratio of norms leaves out the
      bias correction, with one convention more: the largest entry of a singular vector is positive.
    """
    wide = leaf_where(lambda leaf: leaf.ndim == 2 and min(leaf.shape) > rank)
    adam = handed_on(scale_by_adam, bias_correction=False)
    basis = every(update_interval, svd_basis(rank, projection))

    def step(g: Signal) -> Signal:
        chosen, others = split(g, wide if project is None else project)
        subspace, low, moved = in_subspace(chosen, adam, basis)
        rest = saturate(chosen - scale * unproject(subspace, low))
        rest = rest * lengthening(subspace, low, moved) >> limit_norm_growth(max_growth)
        u = merge(scale * unproject(subspace, moved) + rest, others >> named("rest", adam))
        t = step_count()
        return u * sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)

    return flow(step)


@method(
    "Chen et al. 2024, Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?",
    arxiv="2410.01623",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"rank": 2, "update_interval": 10},
)
@transformation(
    synonyms={"update_proj_gap": "update_interval", "alpha": "scale", "proj_type": "projection"}
)
def fira(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 8,
    update_interval: Period = 200,
    scale: Number = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    max_growth: AtLeastOne = 1.01,
    projection: OneSide = "std",
    project: Mask | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Fira; the rule is that of `scale_by_fira`.

    Args:
      learning_rate: number or schedule.
      rank, update_interval, scale, b1, b2, eps, max_growth, projection, project: see
        `scale_by_fira`.
      weight_decay: decay of the params after the step, multiplied by the rate; not projected.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_fira`.

    Returns:
      The optimizer. For an (m, n) matrix with m >= n its state is 2 m rank + rank n + 1.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fira
      >>> opt = fira(0.5, rank=1)
      >>> params = jnp.array([[4.0, 0.0], [2.0, 1.0]])
      >>> print(opt.update(params, opt.init(params))[0].round(2) + 0.0)
      [[-0.5   0.  ]
       [-0.48 -0.24]]
    """
    return chain(
        handed_on(scale_by_fira),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

"""APOLLO."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    AtLeastOne,
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Period,
    Sampler,
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
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    split,
    sqrt,
    step_count,
    svd_basis,
    transformation,
)
from ...transforms.accumulate import one_minus_power
from ...transforms.shape import limit_norm_growth
from ...transforms.subspaces import in_subspace, lengthening, random_basis

Projection = Literal["random", "svd"]
ScaleType = Literal["channel", "tensor"]


@transformation()
def scale_by_apollo(
    rank: Size = 256,
    update_interval: Period = 200,
    scale: NonNegative = 1.0,
    scale_type: ScaleType = "channel",
    projection: Projection = "random",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    max_growth: AtLeastOne | None = 1.01,
    key: Key = 0,
    project: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """The gradient, lengthened as Adam lengthens its projection on a few random directions.

        P_t of normal entries of variance 1 / rank, drawn at t = 1, k + 1, 2k + 1, ...
        L_t = g_t P_t^T                                 (m >= n; P_t^T g_t otherwise)
        N_t = m_t / (sqrt(v_t) + eps)
        E_t = g_t |N_t| / (|L_t| + 1e-8)                norms row by row (column by column)
        u_t = sqrt(1 - b2^t) / (1 - b1^t) sqrt(scale) limited(E_t)

    with m and v the averages of L and L^2, which stay as they are when P changes, and `limited` as
    `transforms.shape.limit_norm_growth`: from one step to the next the norm of E grows by a factor
    of `max_growth` at most. Leaves that are not projected get plain Adam. P is not kept, but drawn
    again at every step.

    Args:
      rank: directions.
      update_interval: k.
      scale: its square root multiplies the updates of projected leaves.
      scale_type: "channel" as above; "tensor": norms of the whole matrices.
      projection: "random" as above; "svd": the leading singular vectors of g_t, which are kept.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, before bias correction.
      max_growth: see above; None: without limit.
      key: seed or key of P.
      project: leaves to be projected: a predicate of a leaf, a tree of booleans, or a function of
        the params; default matrices both of whose sides are longer than `rank`.
      sampler: `(key, count, params) -> tree` of P, (rank, n) for m >= n, (m, rank) otherwise; the
        count is that of the step at which it is new, 0 for the first.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Zhu et al. 2024, APOLLO: SGD-like Memory, AdamW-level Performance (arXiv 2412.05270). We
      follow the authors' package, in which the ratio of norms leaves out the bias correction, and
      `scale` is a square.
    """
    wide = leaf_where(lambda leaf: leaf.ndim == 2 and min(leaf.shape) > rank)
    adam = handed_on(scale_by_adam, bias_correction=False)
    if projection == "svd":
        basis = every(update_interval, svd_basis(rank))
    else:
        basis = random_basis(rank, "std", "gaussian", key, sampler, update_interval)
    limited = flow(lambda e: e) if max_growth is None else limit_norm_growth(max_growth)

    def step(g: Signal) -> Signal:
        chosen, others = split(g, wide if project is None else project)
        subspace, low, moved = in_subspace(chosen, adam, basis)
        lengthened = chosen * lengthening(subspace, low, moved, scale_type) >> limited
        u = merge(sqrt(scheduled(scale)) * lengthened, others >> named("rest", adam))
        t = step_count()
        return u * sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)

    return flow(step)


@method(
    "Zhu et al. 2024, APOLLO: SGD-like Memory, AdamW-level Performance",
    arxiv="2412.05270",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"rank": 2, "update_interval": 10},
)
@transformation(
    synonyms={"update_proj_gap": "update_interval", "proj": "projection"},
    renamed={"disable_nl": "write max_growth=None"},
)
def apollo(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 256,
    update_interval: Period = 200,
    scale: NonNegative = 1.0,
    scale_type: ScaleType = "channel",
    projection: Projection = "random",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    max_growth: AtLeastOne | None = 1.01,
    key: Key = 0,
    project: Mask | None = None,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """APOLLO; the rule is that of `scale_by_apollo`.

    Args:
      learning_rate: number or schedule.
      rank, update_interval, scale, scale_type, projection, b1, b2, eps, max_growth, key, project,
        sampler: see `scale_by_apollo`.
      weight_decay: decay of the params after the step, multiplied by the rate; not projected.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_apollo`.

    Returns:
      The optimizer. For an (m, n) matrix with m >= n its state is 2 m rank + 1; with "svd"
      rank n more.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import apollo
      >>> opt = apollo(0.5, rank=1)
      >>> params = jnp.array([[4.0, 0.0], [2.0, 1.0]])
      >>> print(opt.update(params, opt.init(params))[0].round(2) + 0.0)
      [[-0.87  0.  ]
       [-2.86 -1.43]]
    """
    return chain(
        handed_on(scale_by_apollo),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

"""GaLore."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    Period,
    Size,
    chain,
    decay_weights,
    every,
    handed_on,
    leaf_where,
    low_rank,
    scale_by_adam,
    scale_by_learning_rate,
    svd_basis,
    transformation,
)
from ...transforms.subspaces import Side


@transformation()
def scale_by_galore(
    rank: Size = 128,
    update_interval: Period = 200,
    scale: Number = 0.25,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    projection: Side = "std",
    project: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam on the leading singular directions of each matrix.

        P_t from the SVD of g_t at t = 1, k + 1, 2k + 1, ..., else P_{t-1}
        L_t = g_t P_t^T                                 (m >= n; P_t^T g_t otherwise)
        u_t = scale sqrt(1 - b2^t) / (1 - b1^t) m_t / (sqrt(v_t) + eps) P_t

    with m and v the averages of L and L^2, which stay as they are when P changes. Leaves that are
    not projected get plain Adam, without the scale.

    Args:
      rank: singular vectors kept.
      update_interval: k, steps between two SVDs.
      scale: factor of the projected leaves' updates.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, before bias correction.
      projection: "std", "reverse_std", "left", "right" or "full"; see `transforms.svd_basis`.
      project: leaves to be projected: a predicate of a leaf, a tree of booleans, or a function of
        the params; default matrices both of whose sides are longer than `rank`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Zhao et al. 2024, GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection (arXiv
      2403.03507). We follow the authors' code, whose eps is added before bias correction and whose
      square matrices are projected from the right, with one convention more: the largest entry of a
      singular vector is positive.
    """
    wide = leaf_where(lambda leaf: leaf.ndim == 2 and min(leaf.shape) > rank)
    adam = handed_on(scale_by_adam, eps_before_correction=True)
    basis = every(update_interval, svd_basis(rank, projection))
    return low_rank(adam, basis, scale=scale, select=wide if project is None else project)


@method(
    "Zhao et al. 2024, GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    arxiv="2403.03507",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"rank": 2, "update_interval": 10, "scale": 1.0},
)
@transformation(
    synonyms={"update_proj_gap": "update_interval"},
    renamed={
        "base_optimizer": "the inner optimizer is Adam; transforms.low_rank takes any other",
        "weight_dimension_numbers": "write project=..., which selects the matrices",
    },
)
def galore(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 128,
    update_interval: Period = 200,
    scale: Number = 0.25,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    projection: Side = "std",
    project: Mask | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """GaLore; the rule is that of `scale_by_galore`.

    Args:
      learning_rate: number or schedule.
      rank, update_interval, scale, b1, b2, eps, projection, project: see `scale_by_galore`.
      weight_decay: decay of the params after the step, multiplied by the rate; not projected.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_galore`.

    Returns:
      The optimizer. For an (m, n) matrix with m >= n its state is 2 m rank + rank n.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import galore
      >>> opt = galore(0.5, rank=1, scale=1.0)
      >>> params = jnp.diag(jnp.array([4.0, 2.0]))
      >>> print(opt.update(params, opt.init(params))[0].round(3) + 0.0)
      [[-0.5  0. ]
       [ 0.   0. ]]
    """
    return chain(
        handed_on(scale_by_galore),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

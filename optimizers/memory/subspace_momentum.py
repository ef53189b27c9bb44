"""Subspace momentum."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Fraction,
    Key,
    Mask,
    NonNegative,
    Period,
    Sampler,
    Signal,
    Size,
    chain,
    decay_weights,
    divide,
    ema,
    every,
    flow,
    handed_on,
    is_neutral,
    leaf_where,
    merge,
    named,
    reset_every,
    scale_by_learning_rate,
    split,
    sqrt,
    step_count,
    svd_basis,
    transformation,
)
from ...transforms.accumulate import SubsetSize, debiased_root, one_minus_power, subset_moment
from ...transforms.subspaces import (
    Moments,
    in_subspace,
    random_basis,
    residual,
    selected_slices,
    unproject,
)

Projection = Literal["svd", "topk", "uniform", "srht"]
SecondMoment = Literal["subset_norm", "full", "none"]
ResetMomentum = Literal["after", "before", "never"]


@transformation()
def scale_by_subspace_momentum(
    rank: Size,
    projection: Projection = "svd",
    update_interval: Period = 200,
    second_moment: SecondMoment = "subset_norm",
    subset_size: SubsetSize = "heuristics",
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    reset_momentum: ResetMomentum = "after",
    key: Key = 0,
    project: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Momentum in a subspace of each matrix, the plain gradient outside of it.

        L_t = P_t^T g_t                                 P_t from g_t at t = 1, k, 2k, ...
        m_t = b1 m_{t-1} + (1 - b1) L_t
        n_t = P_t m_t + (g_t - P_t L_t)
        u_t = n_t / (sqrt(v_t) + eps),  times sqrt(1 - b2^t) / (1 - b1^t) if bias_correction

    Leaves that are not projected have an ordinary momentum m_t for n_t.

    Args:
      rank: dimensions that have momentum.
      projection: "svd", leading singular vectors; "topk", the slices of largest norm along the
        longer side; "uniform", random ones; "srht", a subsampled randomised Hadamard transform of
        the shorter side.
      update_interval: k, steps between two subspaces.
      second_moment: v_t: "subset_norm", of `transforms.accumulate.subset_moment`, "full", one per
        entry, or "none": u_t = n_t, without correction.
      subset_size: see `transforms.accumulate.subset_moment`.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1]; 1 sums, as AdaGrad.
      eps: added to the root, before bias correction.
      bias_correction: corrects both averages for their start at zero.
      reset_momentum: "after": a step with a new subspace still uses the momentum, read in the new
        basis, and then forgets it; "before": it forgets it first; "never".
      key: seed or key of "uniform" and "srht".
      project: leaves to be projected: a predicate of a leaf, a tree of booleans, or a function of
        the params; default the matrices with no side shorter than `rank`.
      sampler: `(key, count, params) -> tree` of the indices of "uniform" or the bases of "srht" in
        place of random ones; count is 0 at the first step.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Raises:
      ValueError: for a corrected sum; in `init`, for a leaf that `project` selects and that has a
        side shorter than `rank`.

    References:
      Nguyen & Nguyen 2024, Efficient Adaptive Optimization via Subset-Norm and Subspace-Momentum:
      Fast, Memory-Reduced Training with Convergence Guarantees (arXiv 2411.07120). "after" is what
      timmytonga/sn-sm does, "before" what the paper's text says. Our Hadamard transform is
      orthonormal; that code divides it by another sqrt(rank).
    """
    corrected = bias_correction and second_moment != "none"
    if corrected and is_neutral(b2, 1.0):
        raise FlowError("subspace_momentum: b2=1 sums up, which bias_correction cannot correct")
    finder = {
        "svd": lambda: svd_basis(rank),
        "topk": lambda: selected_slices(rank, "topr", "longer", by_norm=True),
        "uniform": lambda: selected_slices(rank, "uniform_nr", "longer", key=key, sampler=sampler),
        "srht": lambda: random_basis(rank, kind="hadamard", key=key, sampler=sampler),
    }[projection]()
    basis = every(update_interval, finder, phase=0, also_first=True)
    momentum = named("mu", ema(b1))
    forgetting = momentum
    if reset_momentum == "after":
        forgetting = reset_every(update_interval, momentum, phase=1, start=3)
    wide = leaf_where(lambda leaf: leaf.ndim == 2 and min(leaf.shape) >= rank)
    sharing = leaf_where(lambda leaf: second_moment == "subset_norm" and leaf.ndim == 2)

    def step(g: Signal) -> Signal:
        part, others = split(g, wide if project is None else project)
        moments: Moments = "reset" if reset_momentum == "before" else "keep"
        subspace, _, m = in_subspace(part, forgetting, basis, moments)
        inside = unproject(subspace, m)
        n = merge(inside + residual(subspace, part), others >> named("rest", momentum))
        if second_moment == "none":
            return n
        v = subset_moment(g, b2, subset_size, sharing)
        if not corrected:
            return divide(n, sqrt(v) + eps, eps)
        debiased = n / one_minus_power(b1, step_count())
        return divide(debiased, debiased_root(v, b2, eps, eps_before_correction=True), eps)

    return flow(step)


@method(
    "Nguyen & Nguyen 2024, Efficient Adaptive Optimization via Subset-Norm and Subspace-Momentum",
    arxiv="2411.07120",
    tags=("adam", "low-memory", "low-rank", "matrix", "momentum"),
    learning_rate=0.02,
    required={"rank": 2},
)
@transformation()
def subspace_momentum(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size,
    projection: Projection = "svd",
    update_interval: Period = 200,
    second_moment: SecondMoment = "subset_norm",
    subset_size: SubsetSize = "heuristics",
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    reset_momentum: ResetMomentum = "after",
    weight_decay: NonNegative = 0.0,
    key: Key = 0,
    project: Mask | None = None,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Subspace momentum; the rule is that of `scale_by_subspace_momentum`.

    Args:
      learning_rate: number or schedule.
      rank, projection, update_interval, second_moment, subset_size, b1, b2, eps, bias_correction,
        reset_momentum, key, project, sampler: see `scale_by_subspace_momentum`.
      weight_decay: decay of the params after the step, multiplied by the rate; not projected.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_subspace_momentum`.

    Returns:
      The optimizer. Of an (m, n) matrix with m >= n it stores m rank + rank n numbers ("topk" and
      "uniform": rank n + rank), and the second moments.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import subspace_momentum
      >>> opt = subspace_momentum(1.0, rank=1, second_moment="none")
      >>> params = jnp.diag(jnp.array([4.0, 2.0]))
      >>> print(opt.update(params, opt.init(params))[0].round(3) + 0.0)
      [[-0.4  0. ]
       [ 0.  -2. ]]
    """
    return chain(
        handed_on(scale_by_subspace_momentum),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

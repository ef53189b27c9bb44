"""Subset-norm: one second moment for many entries."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Fraction,
    Mask,
    NonNegative,
    Signal,
    chain,
    debias,
    debiased_root,
    decay_weights,
    divide,
    ema,
    flow,
    leaf_where,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    transformation,
)
from ...transforms.accumulate import SubsetSize, subset_moment
from ...transforms.notation import is_neutral


@transformation()
def scale_by_subset_norm(
    subset_size: SubsetSize = "heuristics",
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    subset_1d: bool = False,
    project: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Momentum over the root of a second moment that the entries of a subset share.

        s_t = sum of g_t^2 over each subset
        v_t = b2 v_{t-1} + (1 - b2) s_t,    v_t = v_{t-1} + s_t  if b2 = 1
        m_t = b1 m_{t-1} + (1 - b1) g_t
        u_t = m_t / (sqrt(v_t) + eps),  times sqrt(1 - b2^t) / (1 - b1^t) if bias_correction

    Sums, not means: rates are about ten times Adam's.

    Args:
      subset_size: "heuristics": a sum for each row of a matrix, or for each column if these are
        more; k > 0: chunks of the row-major leaf, of the largest divisor of its size up to k;
        k < 0: the same with floor(sqrt(size) / |k|), at least 1, for k.
      b1: decay of the momentum, in [0, 1); 0 keeps none.
      b2: decay of the second moment, in [0, 1]; 1 sums, as AdaGrad.
      eps: added to the root.
      bias_correction: corrects both averages for their start at zero.
      subset_1d: all leaves share, not matrices alone; the others have one moment per entry.
      project: the leaves that share: a tree of booleans, or a function of the params; default by
        `subset_1d`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Raises:
      ValueError: for a size of 0, the heuristics with `subset_1d`, or a corrected sum.

    References:
      Nguyen & Nguyen 2024, Efficient Adaptive Optimization via Subset-Norm and Subspace-Momentum:
      Fast, Memory-Reduced Training with Convergence Guarantees (arXiv 2411.07120). As in
      timmytonga/sn-sm, eps is outside the root.
    """
    if subset_size == "heuristics" and subset_1d:
        raise FlowError("subset_norm: subset_1d needs a number for subset_size")
    if is_neutral(b2, 1.0) and bias_correction:
        raise FlowError("subset_norm: b2=1 sums up, which bias_correction cannot correct")
    chosen = project
    if project is None:
        chosen = leaf_where(lambda leaf: subset_1d or leaf.ndim == 2)

    def step(g: Signal) -> Signal:
        m = g if is_neutral(b1) else g >> ema(b1, name="mu")
        v = subset_moment(g, b2, subset_size, chosen)
        if not bias_correction:
            return divide(m, sqrt(v) + scheduled(eps), eps)
        corrected = m if is_neutral(b1) else m >> debias(b1)
        return divide(corrected, debiased_root(v, b2, eps, eps_before_correction=True), eps)

    return flow(step)


@method(
    "Nguyen & Nguyen 2024, Efficient Adaptive Optimization via Subset-Norm and Subspace-Momentum",
    arxiv="2411.07120",
    tags=("adam", "low-memory", "momentum"),
    learning_rate=0.02,
)
@transformation()
def subset_norm(
    learning_rate: optax.ScalarOrSchedule,
    subset_size: SubsetSize = "heuristics",
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    weight_decay: NonNegative = 0.0,
    subset_1d: bool = False,
    project: Mask | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdamSN, AdaGradSN or RMSPropSN; the rule is that of `scale_by_subset_norm`.

    AdaGradSN: b2=1.0, bias_correction=False. RMSPropSN: b1=0.0, bias_correction=False.

    Args:
      learning_rate: number or schedule.
      subset_size, b1, b2, eps, bias_correction, subset_1d, project: see `scale_by_subset_norm`.
      weight_decay: multiplied by the rate, on the params after the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_subset_norm`.

    Returns:
      The optimizer; its state is the size of the params, and a number per subset.

    Raises:
      ValueError: for a hyper-parameter out of range, or choices that exclude each other.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import subset_norm
      >>> opt = subset_norm(1.0)
      >>> g = jnp.array([[3.0, 4.0], [0.0, 5.0]])
      >>> abs(opt.update(g, opt.init(g))[0]).round(3).tolist()
      [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    return chain(
        scale_by_subset_norm(subset_size, b1, b2, eps, bias_correction, subset_1d, project),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

"""MARS-AdamW."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    handed_on,
    scale_by_adam,
    transformation,
)
from .mars import descend, for_matrices, mars


@transformation()
def scale_by_mars_adamw(
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: Number = 0.025,
    exact: bool = False,
    amsgrad: bool = False,
    optimize_1d: bool = False,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam on the variance-reduced gradients of matrices, plain Adam on other leaves.

        c_t = g_t + gamma b1 / (1 - b1) (g_t - p_t),   clipped to norm 1 leaf by leaf
        u_t = Adam direction of c_t with b1, b2, eps

    with p_t the gradient before, zero at first. Leaves that are not matrices get the Adam direction
    of g_t with b1_1d, b2_1d, eps.

    Args:
      b1: decay of the momentum, in [0, 1); also weighs the correction.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      gamma: strength of the correction.
      exact: p_t is the extra input `previous_grads`, the gradient of this batch at the previous
        params.
      amsgrad: divide by the root of the largest second moment so far.
      optimize_1d: treat all leaves as matrices.
      b1_1d, b2_1d: decays for other leaves.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models
      (arXiv 2411.10438). We follow the authors' code, whose second moment is that of the clipped c,
      and which goes by the number of axes: embeddings are matrices, too.
    """
    adam = mars(handed_on(scale_by_adam), gamma, b1, exact)
    return for_matrices(adam, b1_1d, b2_1d, eps, optimize_1d)


@method(
    "Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models",
    arxiv="2411.10438",
    tags=("tracked-mean", "adam", "decoupled-decay"),
    learning_rate=3e-3,
)
@transformation()
def mars_adamw(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    gamma: Number = 0.025,
    exact: bool = False,
    amsgrad: bool = False,
    optimize_1d: bool = False,
    learning_rate_1d: optax.ScalarOrSchedule = 3e-3,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    weight_decay_1d: NonNegative = 0.1,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """MARS-AdamW; the rule is that of `scale_by_mars_adamw`.

    Args:
      learning_rate: for matrices; number or schedule.
      b1, b2, eps, gamma, exact, amsgrad, optimize_1d, b1_1d, b2_1d: see `scale_by_mars_adamw`.
      weight_decay: decoupled decay of matrices, multiplied by their rate.
      learning_rate_1d: for other leaves. If `learning_rate` is a schedule and this a number, it
        follows the schedule: learning_rate_1d r_t / r_1. A schedule of its own is taken as it is.
      weight_decay_1d: decoupled decay of other leaves, multiplied by their rate.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_mars_adamw`.

    Returns:
      The optimizer; it needs `params`. Its state is three times the size of matrices, twice that of
      other leaves.

    Raises:
      ValueError: for a hyper-parameter out of range, or a schedule that starts at 0 with a
        `learning_rate_1d` that is to follow it.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mars_adamw
      >>> opt = mars_adamw(0.5)
      >>> params = jnp.array([[1.0, -4.0]])
      >>> print(opt.update(params, opt.init(params), params)[0].round(3))
      [[-0.5  0.5]]
    """
    direction = handed_on(scale_by_mars_adamw)
    return descend(
        direction,
        learning_rate,
        weight_decay,
        optimize_1d,
        learning_rate_1d,
        weight_decay_1d,
        mask,
    )

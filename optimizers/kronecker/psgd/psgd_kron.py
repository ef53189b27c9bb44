"""PSGD with Kronecker-factored triangular preconditioners."""

import math
from typing import Annotated

import optax

from ....registry import method
from ....transforms import (
    Constant,
    Decay,
    DType,
    Flow,
    Interval,
    Key,
    Limit,
    Mask,
    Positive,
    Probability,
    Sampler,
    chain,
    handed_on,
    scale_by_learning_rate,
    transformation,
)
from ....transforms.kronecker import stack_same_shapes, unstack
from .fitting import FitMode
from .kronecker_group import Kronecker
from .psgd import Normalizer, default_precond_lr, scale_by_psgd


@transformation()
def scale_by_psgd_kron(
    precond_lr: Positive | None = None,
    mode: FitMode = "newton",
    precond_init_scale: Positive | None = None,
    momentum: Decay = 0.0,
    max_size: Limit = math.inf,
    max_skew: Limit = 1.0,
    step_normalizer: Normalizer = "2nd",
    precond_update_probability: Probability = 1.0,
    grad_clip_norm: Positive | None = None,
    balance_probability: Annotated[Constant, Interval(0.0, 1.0)] = 0.01,
    key: Key = 0,
    trainable: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Preconditions each leaf by Q^T Q, a Kronecker product fitted to curvature pairs.

    With Q = Q_1 x ... x Q_k, the Q_i upper triangular or diagonal, v ~ N(0, I), h = H v ("newton")
    or h = g + 2^-13 mean|g| v ("whiten"), and everything on the right from before the step:

        A = h x_1 Q_1 ... x_k Q_k,      B = v x_1 Q_1^-T ... x_k Q_k^-T
        T = A_(i) A_(i)^T,              S = B_(i) B_(i)^T
        l = |T + S|,  L_i <- max(0.9 L_i + 0.1 l, l)              ("2nd")
        L_i = |triu(T - S)|                                       ("1st")
        Q_i <- Q_i - (precond_lr / L_i) triu(T - S) Q_i
        m   <- momentum m + (1 - momentum) g
        U   = m x_1 Q_1^T Q_1 ... x_k Q_k^T Q_k

    |.| is a lower bound of the spectral norm. Leaves of one shape are treated as one stack.

    A gradient leaf that is not finite counts as zero (observable as `nonfinite_gradients`), and a
    Q that would not stay finite is left as it is (`failed_updates`), as is one whose h is zero. One
    for which |Q h| is above 10^4 |Q^-T v|, as a first gradient next to none leaves it for ordinary
    ones, is multiplied by what makes both as long.

    Args:
      precond_lr: default 0.1 for "2nd", 0.01 for "1st".
      mode: "newton" needs `value_fn` (or the product H v as the input `hvp`), "whiten" the
        gradient only. The input `probe` stands in for v.
      precond_init_scale: scale s of the first Q; default mean(v^2)^(1/4) mean(h^4)^(-1/8), in
        "whiten" mean(g^4)^(-1/8), leaf by leaf.
      momentum: decay of the gradient's average, not debiased.
      max_size: dimensions larger than that get a diagonal factor.
      max_skew: so do dimensions n with n^2 > max_skew size, and those of size 1.
      step_normalizer: "2nd" or "1st".
      precond_update_probability: of fitting Q at a step after the first.
      grad_clip_norm: largest norm of the whole update.
      balance_probability: of equalising the largest entries of the Q_i of every leaf.
      key: seed or key of v and of the coins.
      trainable: leaves that take part, a tree of booleans or a function of the params; the
        others are not moved. Default all.
      sampler: `(key, count, params) -> tree` in place of the normal distribution; count is 0 at the
        first step.
      mu_dtype: storage of the momentum; default at least float32.

    References:
      Pooladzandi & Li 2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners
      (arXiv 2402.04553), and the authors' code of that time, whose triangular update we follow.
      Their later code replaces it by dQ = Q^(1/2) E Q^(3/2) with Procrustes steps.
    """
    label = "scale_by_psgd_kron"
    rate = default_precond_lr(precond_lr, step_normalizer)
    group = Kronecker(max_size, max_skew, step_normalizer, balance_probability)
    return handed_on(
        scale_by_psgd, label=label, group=group, of=stack_same_shapes, back=unstack, precond_lr=rate
    )


@method(
    "Pooladzandi & Li 2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners",
    arxiv="2402.04553",
    tags=("kronecker", "matrix", "noise"),
    learning_rate=3e-3,
    small_model={"mode": "whiten", "momentum": 0.9},
)
@transformation(synonyms={"mask": "trainable"})
def psgd_kron(
    learning_rate: optax.ScalarOrSchedule | None = None,
    precond_lr: Positive | None = None,
    mode: FitMode = "newton",
    precond_init_scale: Positive | None = None,
    momentum: Decay = 0.0,
    max_size: Limit = math.inf,
    max_skew: Limit = 1.0,
    step_normalizer: Normalizer = "2nd",
    precond_update_probability: Probability = 1.0,
    grad_clip_norm: Positive | None = None,
    balance_probability: Annotated[Constant, Interval(0.0, 1.0)] = 0.01,
    key: Key = 0,
    trainable: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """PSGD, Kronecker; the rule is that of `scale_by_psgd_kron`.

    Args:
      learning_rate: number or schedule; default 0.01 in "newton" mode, 0.001 in "whiten" mode.
      precond_lr, mode, precond_init_scale, momentum, max_size, max_skew, step_normalizer,
        precond_update_probability, grad_clip_norm, balance_probability, key, trainable, sampler:
        see `scale_by_psgd_kron`.
      mu_dtype: see `scale_by_psgd_kron`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import psgd_kron
      >>> opt = psgd_kron(1.0, mode="whiten")
      >>> params = jnp.array(16.0)
      >>> state = opt.init(params)
      >>> for _ in range(60):
      ...     update, state = jax.jit(opt.update)(params, state)
      >>> round(float(update))
      -1
    """
    if learning_rate is None:
        learning_rate = 0.01 if mode == "newton" else 0.001
    direction = handed_on(scale_by_psgd_kron)
    return chain(direction, scale_by_learning_rate(learning_rate))

"""PSGD with diagonal plus anti-diagonal preconditioners."""

import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    Positive,
    Probability,
    Sampler,
    chain,
    flatten_tree,
    handed_on,
    scale_by_learning_rate,
    transformation,
    unflatten_tree,
)
from .cross_group import Cross
from .fitting import FitMode
from .psgd import Normalizer, default_precond_lr, scale_by_psgd


@transformation()
def scale_by_psgd_xmat(
    precond_lr: Positive | None = None,
    mode: FitMode = "newton",
    precond_init_scale: Positive | None = None,
    momentum: Decay = 0.0,
    step_normalizer: Normalizer = "2nd",
    precond_update_probability: Probability = 1.0,
    grad_clip_norm: Positive | None = None,
    key: Key = 0,
    trainable: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Preconditions all leaves together by Q^T Q with Q = diag(a) + antidiag(b).

    All entries form one vector in tree order, and R reverses it. With v ~ N(0, I), h = H v
    ("newton") or h = g + 2^-13 mean|g| v ("whiten"), and everything on the right from before:

        x = a h + b R(h),     w = Q^-T v = (R(a) v - R(b) R(v)) / (a R(a) - b R(b))
        A = x^2 - w^2,        B = x R(x) - w R(w), 0 in the middle of a vector of odd length
        mu = precond_lr / max(x^2 + w^2) ("2nd"),  precond_lr / max(|A|, |B|) ("1st")
        a <- a - mu (A a + B R(b)),      b <- b - mu (A b + B R(a))
        m <- momentum m + (1 - momentum) g
        U  = (a^2 + R(b^2)) m + (a b + R(a b)) R(m)                  with the new a and b

    A gradient leaf that is not finite counts as zero (observable as `nonfinite_gradients`), and a
    Q that would not stay finite is left as it is (`failed_updates`), as at a pair whose h is zero.
    One for which |Q h| is above 10^4 |Q^-T v|, as a first gradient next to none leaves it for
    ordinary ones, is multiplied by what makes both as long.

    Args:
      precond_lr: default 0.1 for "2nd", 0.01 for "1st"; above 1 the preconditioner may become
        singular.
      mode: "newton" needs `value_fn` (or the product H v as the input `hvp`), "whiten" the
        gradient only. The input `probe` stands in for v.
      precond_init_scale: scale s of the first Q; default mean(v^2)^(1/4) mean(h^4)^(-1/8), in
        "whiten" mean(g^4)^(-1/8), over all entries.
      momentum: decay of the gradient's average, not debiased.
      step_normalizer: "2nd" or "1st".
      precond_update_probability: of fitting Q at a step after the first.
      grad_clip_norm: largest norm of the whole update.
      key: seed or key of all draws.
      trainable: leaves that take part, a tree of booleans or a function of the params; the
        others are not moved. Default all.
      sampler: `(key, count, params) -> tree` in place of the normal distribution of v; count is 0
        at the first step.
      mu_dtype: storage of the momentum; default at least float32.

    References:
      Pooladzandi & Li 2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners
      (arXiv 2402.04553), whose matrix-free family comes from finite groups of permutations; this
      member, of order two, is the one that the authors' code had.
    """
    label = "scale_by_psgd_xmat"
    rate = default_precond_lr(precond_lr, step_normalizer)
    return handed_on(
        scale_by_psgd,
        label=label,
        group=Cross(step_normalizer),
        of=flatten_tree,
        back=unflatten_tree,
        precond_lr=rate,
    )


@method(
    "Pooladzandi & Li 2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners",
    arxiv="2402.04553",
    tags=("matrix", "noise"),
    learning_rate=3e-3,
    small_model={"mode": "whiten", "momentum": 0.9},
)
@transformation(synonyms={"mask": "trainable"})
def psgd_xmat(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    precond_lr: Positive | None = None,
    mode: FitMode = "newton",
    precond_init_scale: Positive | None = None,
    momentum: Decay = 0.0,
    step_normalizer: Normalizer = "2nd",
    precond_update_probability: Probability = 1.0,
    grad_clip_norm: Positive | None = None,
    key: Key = 0,
    trainable: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """PSGD, diagonal plus anti-diagonal; the rule is that of `scale_by_psgd_xmat`.

    Args:
      learning_rate: number or schedule; ten times smaller in "whiten" mode than in "newton" mode.
      precond_lr, mode, precond_init_scale, momentum, step_normalizer, precond_update_probability,
        grad_clip_norm, key, trainable, sampler: see `scale_by_psgd_xmat`.
      mu_dtype: see `scale_by_psgd_xmat`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import psgd_xmat
      >>> loss = lambda x: x[0] ** 2 + 50 * x[1] ** 2
      >>> opt = psgd_xmat(0.5)
      >>> params = jnp.array([2.0, -3.0])
      >>> state = opt.init(params)
      >>> step = jax.jit(lambda p, s: opt.update(jax.grad(loss)(p), s, p, value_fn=loss))
      >>> for _ in range(200):
      ...     update, state = step(params, state)
      ...     params = params + update
      >>> bool(loss(params) < 1e-6)
      True
    """
    direction = handed_on(scale_by_psgd_xmat)
    return chain(direction, scale_by_learning_rate(learning_rate))

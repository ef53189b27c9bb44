"""PSGD with low-rank preconditioners."""

from collections.abc import Callable
from typing import Annotated, Literal

import jax
import optax
from jax.typing import ArrayLike

from ....registry import method
from ....transforms import (
    Constant,
    Decay,
    DType,
    Flow,
    Interval,
    Key,
    Length,
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
from .fitting import FitMode
from .low_rank_group import LowRank
from .psgd import Normalizer, default_precond_lr, scale_by_psgd

UpdateFactor = Literal["random", "alternate"]
Coin = Callable[[jax.Array, jax.Array], ArrayLike]
"""A function that tosses in place of a fair coin: `(key, count) -> bool`."""


@transformation()
def scale_by_psgd_lra(
    rank: Length = 10,
    precond_lr: Positive | None = None,
    mode: FitMode = "newton",
    precond_init_scale: Positive | None = None,
    momentum: Decay = 0.0,
    step_normalizer: Normalizer = "2nd",
    precond_update_probability: Probability = 1.0,
    grad_clip_norm: Positive | None = None,
    update_factor: UpdateFactor = "random",
    balance_probability: Annotated[Constant, Interval(0.0, 1.0)] = 0.01,
    key: Key = 0,
    trainable: Mask | None = None,
    init_factors: tuple[jax.Array, jax.Array] | None = None,
    sampler: Sampler | None = None,
    coin_fn: Coin | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Preconditions all leaves together by Q^T Q with Q = (I + U V^T) diag(d).

    With v ~ N(0, I), h = H v ("newton") or h = g + 2^-13 mean|g| v ("whiten"), K = I + V^T U, and
    everything on the right from before the step:

        a  = Q h,    b = Q^-T v,    P = Q^T Q
        D  = (P h) h - v (P^-1 v)
        d <- d - mu d D
        U <- U - nu (a a^T V - b b^T V) K                            at random, or in turn, else
        V <- V - nu ((a + V U^T a) (a^T U) - (b + V U^T b) (b^T U))
        m <- momentum m + (1 - momentum) g
        step = P m                                                   with the new P

    In "2nd", mu = precond_lr min(1 / (|(P h, v)| |(h, P^-1 v)|)) over the entries and
    nu = precond_lr / (|a| |A| + |b| |B|) with A = V V^T a, B = V V^T b (for V: U U^T a, U U^T b).
    In "1st", mu = precond_lr / max|D| and nu = precond_lr / |a A^T - b B^T|.

    A gradient leaf that is not finite counts as zero (observable as `nonfinite_gradients`), and a
    Q that would not stay finite is left as it is (`failed_updates`), as at a pair whose h is zero.
    One for which |Q h| is above 10^4 |Q^-T v|, as a first gradient next to none leaves it for
    ordinary ones, is multiplied by what makes both as long.

    Args:
      rank: columns of U and V; 0 leaves a diagonal preconditioner.
      precond_lr: default 0.1 for "2nd", 0.01 for "1st".
      mode: "newton" needs `value_fn` (or the product H v as the input `hvp`), "whiten" the
        gradient only. The input `probe` stands in for v.
      precond_init_scale: scale s of the first Q; default mean(v^2)^(1/4) mean(h^4)^(-1/8), in
        "whiten" mean(g^4)^(-1/8), over all entries.
      momentum: decay of the gradient's average, not debiased.
      step_normalizer: "2nd" or "1st".
      precond_update_probability: of fitting Q at a step after the first.
      grad_clip_norm: largest norm of the whole update.
      update_factor: "random" tosses a coin for U or V, "alternate" takes U at odd updates.
      balance_probability: of equalising the norms of U and V.
      key: seed or key of all draws.
      trainable: leaves that take part, a tree of booleans or a function of the params; the
        others are not moved. Default all.
      init_factors: (U, V) of shape (n, rank) to start from, in place of random ones.
      sampler: `(key, count, params) -> tree` in place of the normal distribution of v; count is 0
        at the first step.
      coin_fn: `(key, count) -> bool`, whether U is updated and not V, in place of `update_factor`;
        count is 0 at the first update of Q.
      mu_dtype: storage of the momentum; default at least float32.

    References:
      Pooladzandi & Li 2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners
      (arXiv 2402.04553), and the authors' code of that time, which we follow. Their later code
      rotates U and V at every step and keeps running Lipschitz constants.
    """
    label = "scale_by_psgd_lra"
    rate = default_precond_lr(precond_lr, step_normalizer)
    alternate = update_factor == "alternate"
    group = LowRank(rank, step_normalizer, alternate, balance_probability, init_factors, coin_fn)
    return handed_on(
        scale_by_psgd,
        label=label,
        group=group,
        of=flatten_tree,
        back=unflatten_tree,
        precond_lr=rate,
    )


@method(
    "Pooladzandi & Li 2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners",
    arxiv="2402.04553",
    tags=("low-rank", "matrix", "noise"),
    learning_rate=3e-3,
    small_model={"mode": "whiten", "momentum": 0.9, "rank": 4},
)
@transformation(synonyms={"mask": "trainable"})
def psgd_lra(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    rank: Length = 10,
    precond_lr: Positive | None = None,
    mode: FitMode = "newton",
    precond_init_scale: Positive | None = None,
    momentum: Decay = 0.0,
    step_normalizer: Normalizer = "2nd",
    precond_update_probability: Probability = 1.0,
    grad_clip_norm: Positive | None = None,
    update_factor: UpdateFactor = "random",
    balance_probability: Annotated[Constant, Interval(0.0, 1.0)] = 0.01,
    key: Key = 0,
    trainable: Mask | None = None,
    init_factors: tuple[jax.Array, jax.Array] | None = None,
    sampler: Sampler | None = None,
    coin_fn: Coin | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """PSGD, low rank; the rule is that of `scale_by_psgd_lra`.

    Args:
      learning_rate: number or schedule; ten times smaller in "whiten" mode than in "newton" mode.
      rank, precond_lr, mode, precond_init_scale, momentum, step_normalizer,
        precond_update_probability, grad_clip_norm, update_factor, balance_probability, key,
        trainable, init_factors, sampler, coin_fn: see `scale_by_psgd_lra`.
      mu_dtype: see `scale_by_psgd_lra`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import psgd_lra
      >>> loss = lambda x: x[0] ** 2 + 50 * x[1] ** 2
      >>> opt = psgd_lra(0.5, rank=1)
      >>> params = jnp.array([2.0, -3.0])
      >>> state = opt.init(params)
      >>> step = jax.jit(lambda p, s: opt.update(jax.grad(loss)(p), s, p, value_fn=loss))
      >>> for _ in range(200):
      ...     update, state = step(params, state)
      ...     params = params + update
      >>> bool(loss(params) < 1e-6)
      True
    """
    direction = handed_on(scale_by_psgd_lra)
    return chain(direction, scale_by_learning_rate(learning_rate))

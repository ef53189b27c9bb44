"""ScaledGD(lambda)."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Mask,
    NonNegative,
    Signal,
    chain,
    flow,
    handed_on,
    merge,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.kronecker import Pairs, finite_or_plain, partner_leaves, solve_gram


@transformation()
def scale_by_factor_gram(
    damping: NonNegative = 1e-3, pairs: Pairs = None, preconditioned: Mask | None = None
) -> Flow:
    r"""Gradients of low-rank factors times the inverse Gram matrix of the other factor.

    For a model left right^T, both from the params of before the step,

    $$X_L = G_L (R^T R + \lambda I)^{-1}, \qquad X_R = G_R (L^T L + \lambda I)^{-1},$$

    and for a symmetric model X X^T, $G (X^T X + \lambda I)^{-1}$. Other leaves pass unchanged. A
    factor whose Gram matrix is singular takes its plain gradient; the tap `fallbacks` counts them.

    Args:
      damping: lambda. With 0 the steps do not depend on the basis of the factors, but factors of
        more columns than the rank become singular.
      pairs: (left, right) names of leaves, such as ("decoder/left", "decoder/right"); default:
        every matrix (n, r) is the factor of a symmetric model.
      preconditioned: the leaves that may be preconditioned; default all.

    References:
      Xu, Shen, Chi & Ma 2023, The Power of Preconditioning in Overparameterized Low-Rank Matrix
      Sensing: symmetric, lambda > 0, from a small random start. Tong, Ma & Chi 2021: pairs and
      lambda = 0 (Titan-Tong/ScaledGD). No official code of the former was found.
    """

    def step(g: Signal, params: Signal) -> Signal:
        other = partner_leaves(params, pairs, preconditioned)
        return merge(finite_or_plain(solve_gram(g, other, damping), g), g)

    return flow(step)


@method(
    "Xu, Shen, Chi & Ma 2023, The Power of Preconditioning in Overparameterized Low-Rank Matrix "
    "Sensing",
    arxiv="2302.01186",
    tags=("matrix", "low-rank"),
    learning_rate=0.1,
    small_model={"damping": 0.1},
)
@transformation(synonyms={"mask": "preconditioned"})
def scaled_gd(
    learning_rate: optax.ScalarOrSchedule = 0.3,
    damping: NonNegative = 1e-3,
    pairs: Pairs = None,
    preconditioned: Mask | None = None,
) -> Flow:
    """Preconditioned gradient descent for low-rank factors; see `scale_by_factor_gram`.

    The paper's loss is a quarter of the squared residual of X X^T: for half of it, halve the rate.

    Args:
      learning_rate: a number or a schedule.
      damping: of the Gram matrices.
      pairs: names of the leaves whose product is the model; default: every matrix by itself.
      preconditioned: the leaves that may be preconditioned; default all.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import scaled_gd
      >>> params = {"x": jnp.full((1, 1), 2.0)}
      >>> opt = scaled_gd(1.0, damping=0.0)
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> float(updates["x"][0, 0])
      -0.5
    """
    return chain(handed_on(scale_by_factor_gram), scale_by_learning_rate(learning_rate))

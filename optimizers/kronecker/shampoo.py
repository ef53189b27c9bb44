"""Shampoo."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Period,
    Signal,
    Size,
    chain,
    decay_weights,
    ema,
    every,
    flow,
    handed_on,
    is_neutral,
    named,
    scale_by_learning_rate,
    tap,
    transformation,
)
from ...transforms.kronecker import (
    Exponent,
    RootSolver,
    Solver,
    bounded_or_zero,
    failed_roots,
    inverse_roots,
    kronecker_statistics,
    precondition,
    stack_same_shapes,
    unstack,
)


@transformation()
def scale_by_shampoo(
    eps: NonNegative = 1e-4,
    momentum: Decay = 0.0,
    update_interval: Period = 1,
    max_dim: Size | None = None,
    exponent: Exponent | None = None,
    root_solver: RootSolver | Solver = "eigh",
) -> Flow:
    """Preconditions every dimension of a tensor by the gradients seen along it.

    For a leaf of order k and each of its dimensions i, with G_(i) the unfolding of G along i:

        H_i <- H_i + G_(i) G_(i)^T,                          H_i = eps I at the start
        P_i  = H_i^(-1/(2k)),                                each `update_interval` steps
        M   <- momentum M + (1 - momentum) G,                M = G without momentum
        U    = M x_1 P_1 ... x_k P_k

    A matrix is thus multiplied by L^(-1/4) and R^(-1/4), a vector by full-matrix AdaGrad's root, a
    scalar is a vector of length one. Leaves of one shape are factorised together, under an
    explicit mesh on all of its devices.

    A gradient leaf whose mean square is not finite counts as zero (observable as
    `nonfinite_gradients`), a root that fails keeps the one before it (`failed_roots`).

    Args:
      eps: start of the diagonal of the statistics; eigenvalues are not allowed below it.
      momentum: decay of the gradient's average, in [0, 1), which is not debiased.
      update_interval: steps between two computations of the roots, the first at step 1.
      max_dim: dimensions larger than that keep the diagonal of their statistic only.
      exponent: of all roots, in place of -1/(2k).
      root_solver: "eigh", "newton", "newton_schulz" or "qr" (see
        `transforms.kronecker.ROOT_SOLVERS`), or a function of that kind.

    References:
      Gupta, Koren & Singer 2018, Shampoo: Preconditioned Stochastic Tensor Optimization
      (arXiv 1802.09568). A PyTorch port in wide use takes the power -1/k, builds the statistics of
      a dimension from the gradient already preconditioned along those before it, and averages
      preconditioned gradients; the paper, which we follow, does none of these.
    """

    def step(g: Signal) -> Signal:
        stack, dropped = bounded_or_zero(stack_same_shapes(g))
        tap("nonfinite_gradients", dropped)
        statistics = stack >> named("mean_statistics", kronecker_statistics(1.0, max_dim))
        solve = inverse_roots(eps, exponent, root_solver)
        roots = statistics >> named("roots", every(update_interval, solve))
        tap("failed_roots", failed_roots(roots))
        if is_neutral(momentum):
            return unstack(precondition(stack, roots), g)
        return unstack(precondition(stack >> named("mu", ema(momentum)), roots), g)

    return flow(step)


@method(
    "Gupta, Koren & Singer 2018, Shampoo: Preconditioned Stochastic Tensor Optimization",
    arxiv="1802.09568",
    tags=("kronecker", "matrix"),
    learning_rate=0.1,
    small_model={"momentum": 0.9},
)
@transformation()
def shampoo(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    eps: NonNegative = 1e-4,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    update_interval: Period = 1,
    max_dim: Size | None = None,
    exponent: Exponent | None = None,
    mask: Mask | None = None,
    root_solver: RootSolver | Solver = "eigh",
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Shampoo, with L2 regularisation; the rule is that of `scale_by_shampoo`.

    Args:
      learning_rate: number or schedule.
      eps, momentum, update_interval, max_dim, exponent, root_solver: see `scale_by_shampoo`.
      weight_decay: added to the gradient, times the params, before everything else.
      mask: leaves that decay; default all.
      mu_dtype: storage of the first moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import shampoo
      >>> opt = shampoo(0.5, eps=0.0)
      >>> params = jnp.array([[3.0, 0.0], [0.0, -2.0]])
      >>> update, _ = opt.update(params, opt.init(params), params)
      >>> (update.round(3) + 0.0).tolist()
      [[-0.5, 0.0], [0.0, 0.5]]
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        handed_on(scale_by_shampoo),
        scale_by_learning_rate(learning_rate),
    )

"""SANIA."""

from typing import Literal

import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Number,
    Sampler,
    Signal,
    Size,
    absolute,
    chain,
    debias,
    ema,
    flow,
    handed_on,
    hutchinson,
    named,
    on_leaves,
    ones_like,
    scale_by_learning_rate,
    square,
    trace,
    transformation,
)
from ....transforms import sqrt as square_root
from ....transforms.control import at_finite_losses
from ....transforms.curvature import Floor, with_floor
from ....transforms.step_size import with_polyak_step

Preconditioner = Literal["adam_sq", "adagrad_sq", "hessian", "identity"]


@transformation()
def scale_by_sania(
    preconditioner: Preconditioner = "adam_sq",
    b2: Decay = 0.999,
    eps: NonNegative = 0.1,
    sqrt: bool = False,
    eps_mode: Floor = "max",
    f_star: Number = 0.0,
    num_samples: Size = 1,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """A preconditioned gradient with the Polyak step of the quadratic model.

        p_t = g_t / B_t,    G_t = <p_t, g_t>,    c_t = (f_t - f_star) / G_t
        u_t = lam_t p_t,    lam_t = 1 - sqrt(1 - 2 c_t)  if 2 c_t < 1,  else 1

        adagrad_sq   B_t = sum of the squared gradients
        adam_sq      B_t = debiased EMA of the squared gradients
        hessian      B_t = |Hutchinson's estimate of the Hessian diagonal|
        identity     B_t = 1

    Divided by the squares without a root, the method does not notice a rescaling of the features.
    There is no momentum. All leaves share one lam. Where the loss is not finite, params and state
    stay.

    Args:
      preconditioner: B, see above.
      b2: decay of adam_sq.
      eps: floor under B; 0.1 is seen in the scale invariance where gradients are small.
      sqrt: take the root of B, as Adam and AdaGrad do.
      eps_mode: "max" takes max(B, eps) before the root, "add" adds eps after it.
      f_star: the least possible loss of a batch; a smaller loss counts as f_star.
      num_samples: probes of the Hessian diagonal.
      key: seed or key of these probes.
      sampler: `(key, count, params) -> tree` of probes; count is 0 at the first step.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Abdukhakimov et al. 2023, SANIA: Polyak-type Optimization Framework Leads to Scale Invariant
      Stochastic Algorithms (arXiv 2312.17369). Defaults are those of the official PyTorch classes;
      eps_mode="add" is the form of the NumPy ones.
    """
    curvature = hutchinson(key, num_samples, sampler=sampler)

    def diagonal(g: Signal) -> Signal:
        if preconditioner == "adagrad_sq":
            return square(g) >> named("sum_of_squares", trace(1.0))
        if preconditioner == "adam_sq":
            return square(g) >> named("nu", ema(b2)) >> debias(b2)
        return absolute(g >> curvature) if preconditioner == "hessian" else ones_like(square(g))

    def precondition(g: Signal) -> Signal:
        b = diagonal(g)
        if eps_mode == "add":
            return g / with_floor(square_root(b) if sqrt else b, eps, "add")
        b = with_floor(b, eps, eps_mode)
        return g / (square_root(b) if sqrt else b)

    return at_finite_losses(with_polyak_step(flow(precondition), f_star))


@method(
    "Abdukhakimov et al. 2023, SANIA: Polyak-type Optimization Framework Leads to Scale Invariant "
    "Stochastic Algorithms",
    arxiv="2312.17369",
    tags=("curvature", "own-rate"),
    learning_rate=0.1,
)
@transformation(synonyms={"mask": "trainable"})
def sania(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    preconditioner: Preconditioner = "adam_sq",
    b2: Decay = 0.999,
    eps: NonNegative = 0.1,
    sqrt: bool = False,
    eps_mode: Floor = "max",
    f_star: Number = 0.0,
    num_samples: Size = 1,
    key: Key = 0,
    trainable: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """SANIA: Polyak steps that need no rate; the rule is that of `scale_by_sania`.

    Needs `value`, the loss of the same batch at the same params; and `params` and `value_fn` (or
    `hessian_diag`) if the preconditioner is "hessian".

    Args:
      learning_rate: a factor on the Polyak step; number or schedule.
      preconditioner, b2, eps, sqrt, eps_mode, f_star, num_samples, key, sampler: see
        `scale_by_sania`.
      trainable: leaves that are trained, and enter G; the others are not moved. Default all.
      nu_dtype: see `scale_by_sania`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sania
      >>> params, opt = jnp.array([1.0]), sania(preconditioner="identity")
      >>> u, _ = opt.update(2 * params, opt.init(params), params, value=1.5)
      >>> u.tolist()
      [-1.0]
    """
    direction = handed_on(scale_by_sania)
    return on_leaves(trainable, chain(direction, scale_by_learning_rate(learning_rate)))

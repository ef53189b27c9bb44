"""Riemannian AMSGrad."""

import optax

from ...registry import method
from ...transforms import Decay, DType, Flow, NonNegative, Period, transformation
from ...transforms.manifolds import Manifolds, OnManifolds
from .riemannian_adam import ARXIV, PAPER, adam_on


@method(PAPER, arxiv=ARXIV, tags=("adam", "manifolds"), learning_rate=1e-2)
@transformation()
def riemannian_amsgrad(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    manifolds: Manifolds = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    stabilize: Period | None = None,
    bias_correction: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Riemannian Adam that divides by the root of the largest second moment so far.

    As `riemannian_adam`, with

    .. math::
        v_{\max} \leftarrow \max(v_{\max}, v)

    in the place of v. The maximum is taken before the correction, by which it is then divided, so
    that the denominator may still fall.

    Args:
      learning_rate: number or schedule.
      manifolds: of each leaf; see `rsgd`.
      b1, b2, eps, weight_decay, stabilize, bias_correction: see `riemannian_adam`. The paper's
        RAMSGrad is `bias_correction=False, eps=0`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, which stay on their manifolds. Put nothing behind it in a
      chain. Its state is one copy of the params and two numbers per point.

    Raises:
      ValueError: as `rsgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import riemannian_amsgrad
      >>> from gradchain.transforms.manifolds import sphere
      >>> opt, x = riemannian_amsgrad(1.0, sphere()), jnp.array([1.0, 0.0])
      >>> updates, _ = opt.update(jnp.array([5.0, -9.0]), opt.init(x), x)
      >>> print((x + updates).round(3))
      [0.707 0.707]

    References:
      Becigneul & Ganea 2019, Riemannian Adaptive Optimization Methods (arXiv 1810.00760); corrected
      as in geoopt's RiemannianAdam(amsgrad=True), which we follow.
    """
    M = OnManifolds("riemannian_amsgrad", manifolds)
    return adam_on(
        M, learning_rate, b1, b2, eps, weight_decay, stabilize, bias_correction, amsgrad=True
    )

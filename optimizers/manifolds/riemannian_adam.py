"""Riemannian Adam."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Period,
    Signal,
    debias,
    debiased_root,
    decay_weights,
    delay,
    divide,
    ema,
    flow,
    named,
    running_max,
    scheduled,
    sqrt,
    transformation,
)
from ...transforms.manifolds import Manifolds, OnManifolds

PAPER = "Becigneul & Ganea 2019, Riemannian Adaptive Optimization Methods"
ARXIV = "1810.00760"


@method(PAPER, arxiv=ARXIV, tags=("adam", "manifolds"), learning_rate=1e-2)
@transformation()
def riemannian_adam(
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
    r"""Adam on manifolds: one second moment per point, a momentum that is carried along.

    With the Riemannian gradient grad, the squared length at x, the retraction R and the transport T
    of each leaf's manifold:

    .. math::
        r &= \operatorname{grad}(x, g + \lambda x) \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) r, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) \|r\|_x^2 \\
        y &= R_x\Bigl(-\eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}\Bigr),
        \qquad m \leftarrow T_{x \to y} m, \qquad x \leftarrow y

    v is one number for each point: each vector of a sphere or a ball, each matrix of a Stiefel
    manifold, each entry of a Euclidean leaf, where this is Adam.

    Args:
      learning_rate: eta; number or schedule.
      manifolds: of each leaf; see `rsgd`.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      weight_decay: lambda, added to the gradient before it is made Riemannian (L2).
      stabilize: every how many steps points and momenta are put on the manifold again; see `rsgd`.
      bias_correction: False leaves out both corrections, as the paper does.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, which stay on their manifolds. Put nothing behind it in a
      chain. Its state is one copy of the params and one number per point.

    Raises:
      ValueError: as `rsgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import riemannian_adam
      >>> from gradchain.transforms.manifolds import sphere
      >>> opt, x = riemannian_adam(1.0, sphere()), jnp.array([1.0, 0.0])
      >>> updates, _ = opt.update(jnp.array([5.0, -9.0]), opt.init(x), x)
      >>> print((x + updates).round(3))                        # a step of length 1, whatever g
      [0.707 0.707]

    References:
      Becigneul & Ganea 2019, Riemannian Adaptive Optimization Methods (arXiv 1810.00760). The paper
      has neither bias correction nor eps; we follow geoopt's RiemannianAdam, which has both.
    """
    M = OnManifolds("riemannian_adam", manifolds)
    return adam_on(
        M, learning_rate, b1, b2, eps, weight_decay, stabilize, bias_correction, amsgrad=False
    )


def adam_on(
    M: OnManifolds,
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay,
    b2: Decay,
    eps: NonNegative,
    weight_decay: NonNegative,
    stabilize: Period | None,
    bias_correction: bool,
    amsgrad: bool,
) -> Flow:
    """Riemannian Adam, dividing by the root of the largest second moment so far with amsgrad."""

    def step(g: Signal, params: Signal) -> Signal:
        x = M.checked(params)
        r = M.gradient(x, g >> decay_weights(weight_decay))
        mu = delay(g, name="mu")
        decay = scheduled(b1)
        m = decay * mu + (1 - decay) * r
        v = M.squared_length(x, r) >> named("nu", ema(b2))
        if amsgrad:
            v = v >> named("nu_max", running_max())
        if bias_correction:
            d = divide(m >> debias(b1), debiased_root(v, b2, eps), eps)
        else:
            d = divide(m, sqrt(v) + eps, eps)
        y, carried = M.travel(x, -scheduled(learning_rate) * d, stabilize)
        mu << carried(m)
        return y - x

    return flow(step)

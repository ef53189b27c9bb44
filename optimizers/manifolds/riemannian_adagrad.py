"""Riemannian Adagrad."""

import optax

from ...registry import method
from ...transforms import (
    DType,
    Flow,
    NonNegative,
    NonNegativeConstant,
    Signal,
    decay_weights,
    delay,
    divide,
    flow,
    scheduled,
    sqrt,
    transformation,
)
from ...transforms.manifolds import Manifolds, OnManifolds
from .riemannian_adam import ARXIV, PAPER


@method(PAPER, arxiv=ARXIV, tags=("manifolds",), learning_rate=0.1)
@transformation()
def riemannian_adagrad(
    learning_rate: optax.ScalarOrSchedule,
    manifolds: Manifolds = None,
    eps: NonNegative = 1e-8,
    initial_accumulator_value: NonNegativeConstant = 0.0,
    weight_decay: NonNegative = 0.0,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Adagrad on manifolds, with one sum of squares per point.

    With the Riemannian gradient grad, the squared length at x and the retraction R of each leaf's
    manifold:

    .. math::
        r = \operatorname{grad}(x, g + \lambda x), \qquad v \leftarrow v + \|r\|_x^2, \qquad
        x \leftarrow R_x\Bigl(-\eta \frac{r}{\sqrt{v} + \epsilon}\Bigr)

    The first step has length eta, whatever the gradient: choose it well below 1 in a Poincare ball.
    Euclidean leaves have ordinary Adagrad.

    Args:
      learning_rate: eta; number or schedule.
      manifolds: of each leaf; see `rsgd`.
      eps: added to the root.
      initial_accumulator_value: v before the first step.
      weight_decay: lambda, added to the gradient before it is made Riemannian (L2).
      nu_dtype: storage of the sum of squares; default at least float32.

    Returns:
      The optimizer; it needs `params`, which stay on their manifolds. Put nothing behind it in a
      chain. Its state is one number per point.

    Raises:
      ValueError: as `rsgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import riemannian_adagrad
      >>> from gradchain.transforms.manifolds import sphere
      >>> opt, x = riemannian_adagrad(1.0, sphere()), jnp.array([1.0, 0.0])
      >>> updates, _ = opt.update(jnp.array([5.0, -9.0]), opt.init(x), x)
      >>> print((x + updates).round(3))
      [0.707 0.707]

    References:
      Becigneul & Ganea 2019, Riemannian Adaptive Optimization Methods (arXiv 1810.00760). There is
      no official code; the paper has no eps, which is for gradients of zero.
    """
    M = OnManifolds("riemannian_adagrad", manifolds)

    def step(g: Signal, params: Signal) -> Signal:
        x = M.checked(params)
        r = M.gradient(x, g >> decay_weights(weight_decay))
        squares = M.squared_length(x, r)
        past = delay(squares, initial_accumulator_value, name="nu")
        v = past << past + squares
        y = M.retract(x, -scheduled(learning_rate) * divide(r, sqrt(v) + eps, eps))
        return y - x

    return flow(step)

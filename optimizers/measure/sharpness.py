"""How much the loss rises nearby."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import NonNegativeConstant, Size, checked
from ...transforms.notation.domains import Trees
from ...transforms.notation.known import repeat
from .vectors import OF_A_LOSS, LossOf, Params, checked_loss, dot, in_unit, wide


@method(
    "Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization",
    arxiv="2010.01412",
    tags=("flat-minima", "measurement"),
    kind="measurement",
    required=OF_A_LOSS,
)
@checked()
def sharpness(
    value_fn: LossOf[Params],
    params: Annotated[Params, Trees()],
    rho: NonNegativeConstant = 0.05,
    num_steps: Size = 5,
) -> Any:
    r"""The largest rise of the loss in a ball, as gradient ascent finds it.

    .. math::
        \max_{\|e\| \le \rho} f(x + e) - f(x), \qquad
        e_k = \Pi_\rho\left( e_{k-1} + \rho \frac{\nabla f(x + e_{k-1})}{\|\nabla f\|} \right)

    from e = 0, with the projection on the ball; the largest of the rises on the way is given, a
    bound from below. One step is the ascent of `sam`. It costs `num_steps` gradients.

    Args:
      value_fn: params -> loss.
      params: a tree of real arrays.
      rho: radius, in the norm over all params.
      num_steps: of ascent.

    Returns:
      A scalar, at least 0.

    Raises:
      ValueError: for a negative radius, or a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sharpness
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 4.0]) * x**2) / 2
      >>> round(float(sharpness(loss, jnp.array([1e-3, 1e-3]), rho=1.0)), 3)   # at most 2.004
      2.002

    References:
      Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization
      (arXiv 2010.01412). Keskar et al. 2017 (arXiv 1609.04836), who measured it first, maximise
      over a box by L-BFGS, and divide by the loss plus 1.
    """
    loss = checked_loss("sharpness", value_fn, params)
    x = wide(params)

    def at(e: optax.Params) -> jax.Array:
        return loss(jax.tree.map(lambda a, b, p: (a + b).astype(p.dtype), x, e, params))

    def climb(
        _: int | jax.Array, carry: tuple[optax.Params, jax.Array]
    ) -> tuple[optax.Params, jax.Array]:
        e, best = carry
        slope = wide(jax.grad(at)(e))
        longer = jax.tree.map(lambda a, g: a + g, e, _of_length(rho, slope))
        length = jnp.sqrt(dot(longer, longer))
        scale = jnp.where(length > rho, rho / jnp.where(length > 0, length, 1), 1)
        e = jax.tree.map(lambda a: (scale * a).astype(a.dtype), longer)
        return e, jnp.maximum(best, at(e) - at(jax.tree.map(jnp.zeros_like, e)))

    start = jax.tree.map(jnp.zeros_like, x)
    return repeat(num_steps, climb, (start, jnp.zeros_like(at(start))))[1]


def _of_length(length: float | jax.Array, tree: optax.Params) -> optax.Params:
    """A tree of that norm; of zeros, zeros."""
    tree = in_unit(tree)
    size = jnp.sqrt(dot(tree, tree))
    scale = jnp.where(size > 0, length / jnp.where(size > 0, size, 1), 0)
    return jax.tree.map(lambda g: (scale * g).astype(g.dtype), tree)

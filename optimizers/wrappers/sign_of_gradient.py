"""The size of any update with the sign of the present gradient."""

import optax

from ...registry import method
from ...transforms import Flow, Signal, flow, sign, transformation


@method(
    "Cao, Li & Song 2024, Grams: Gradient Descent with Adaptive Momentum Scaling",
    arxiv="2412.17107",
    tags=("sign",),
)
@transformation()
def sign_of_gradient(inner: optax.GradientTransformation, descends: bool = True) -> Flow:
    """Keeps the size of each entry of an update, and gives it the sign of the present gradient.

        -sign(g_t) |u_t|,  u_t = inner(g_t)

    Entries whose gradient is 0 stay where they are, whatever the momentum. Decay of weights belongs
    outside: inside, its sign would be changed, too.

    Args:
      inner: any transformation.
      descends: True for a finished optimizer, whose update goes against the gradient; False for a
        direction (`scale_by_...`), which goes with it.

    Returns:
      The wrapped transformation, with the inner state.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgd, sign_of_gradient
      >>> opt = sign_of_gradient(sgd(1.0, momentum=0.5))
      >>> state = opt.init(jnp.zeros(1))
      >>> _, state = opt.update(jnp.array([8.0]), state)
      >>> opt.update(jnp.array([-1.0]), state)[0].tolist()
      [3.0]

    References:
      Cao, Li & Song 2024, Grams: Gradient Descent with Adaptive Momentum Scaling
      (arXiv 2412.17107).
    """

    def step(g: Signal) -> Signal:
        size = abs(g >> inner)
        return -sign(g) * size if descends else sign(g) * size

    return flow(step)

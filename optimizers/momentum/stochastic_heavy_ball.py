"""Stochastic heavy ball."""

import optax

from ...registry import method
from ...transforms import Decay, DType, Flow, chain, scale_by_learning_rate, trace, transformation


@method(
    "Pan et al. 2024, Accelerated Convergence of Stochastic Heavy Ball Method under Anisotropic "
    "Gradient Noise",
    arxiv="2312.14567",
    tags=("momentum", "low-memory"),
    learning_rate=1e-2,
)
@transformation()
def stochastic_heavy_ball(
    learning_rate: optax.ScalarOrSchedule, momentum: Decay = 0.9, *, mu_dtype: DType | None = None
) -> Flow:
    r"""SGD plus a multiple of the last displacement.

    .. math::
        d_t = \mu d_{t-1} - \eta_t g_t, \qquad \theta_t = \theta_{t-1} + d_t

    The rate is inside the buffer: after a drop the older steps fade at their own size. The usual
    SGD with momentum rescales them, by scaling after the trace instead of before it.

    Args:
      learning_rate: eta; number or schedule.
      momentum: mu, in [0, 1).
      mu_dtype: storage of the first moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import stochastic_heavy_ball
      >>> opt = stochastic_heavy_ball(lambda count: 1.0 - count, momentum=0.5)
      >>> g = jnp.array([1.0])
      >>> first, state = opt.update(g, opt.init(g))
      >>> float(first[0]), float(opt.update(g, state)[0][0])
      (-1.0, -0.5)

    References:
      Pan et al. 2024, Accelerated Convergence of Stochastic Heavy Ball Method under Anisotropic
      Gradient Noise (arXiv 2312.14567). There is no published code.
    """
    return chain(scale_by_learning_rate(learning_rate), trace(momentum))

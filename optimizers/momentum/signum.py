"""Signum."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Signal,
    chain,
    flow,
    momentum,
    scale_by_learning_rate,
    sign,
    transformation,
)


@transformation()
def scale_by_signum(beta: Decay = 0.9, mu_dtype: DType | None = None) -> Flow:
    """The sign of the momentum.

        m_t = beta m_{t-1} + (1 - beta) g_t
        u_t = sign(m_t)

    Args:
      beta: decay of the momentum, in [0, 1); exactly 0 keeps none, which is signSGD.
      mu_dtype: storage dtype of m; default at least float32.

    References:
      Bernstein et al. 2018, signSGD: Compressed Optimisation for Non-Convex Problems (arXiv
      1802.04434); the arguments are those of `optax.signum`.
    """

    def step(g: Signal) -> Signal:
        return sign(g >> momentum(beta, "ema", dtype=mu_dtype, name="mu"))

    return flow(step)


@method(
    "Bernstein et al. 2018, signSGD: Compressed Optimisation for Non-Convex Problems",
    arxiv="1802.04434",
    tags=("sign", "momentum"),
)
@transformation(synonyms={"accumulator_dtype": "mu_dtype"})
def signum(
    learning_rate: optax.ScalarOrSchedule, beta: Decay = 0.9, mu_dtype: DType | None = None
) -> Flow:
    """Signum, with the arguments of `optax.signum`; the rule is that of `scale_by_signum`.

    Args:
      learning_rate: number or schedule; how far every entry goes.
      beta, mu_dtype: see `scale_by_signum`.

    Returns:
      The optimizer; its state is the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import signum
      >>> opt = signum(0.5)
      >>> g = jnp.array([3.0, -2.0, 0.0])
      >>> print(opt.update(g, opt.init(g))[0])
      [-0.5  0.5 -0. ]
    """
    return chain(
        scale_by_signum(beta=beta, mu_dtype=mu_dtype),
        scale_by_learning_rate(learning_rate),
    )

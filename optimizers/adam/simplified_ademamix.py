"""AdEMAMix in its simplified form."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    chain,
    debiased_root,
    decay_weights,
    divide,
    ema,
    flow,
    scale_by_learning_rate,
    scheduled,
    square,
    trace,
    transformation,
)


@transformation()
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with one undamped momentum, to which the present gradient is added with a weight.

        m_t = b1 m_{t-1} + g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = (m_t + alpha g_t) / (sqrt(v_t / (1 - b2^t) + eps_root) + eps)

    m is neither averaged nor debiased, so that rates are smaller than Adam's by about 1 - b1.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      alpha: weight of the present gradient; number or schedule.
      eps: added to the root.
      eps_root: added under the root.
      mu_dtype: storage dtype of m; default at least float32.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Morwani et al. 2025, Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated
      SGD Variants (arXiv 2502.02431); the arguments are those of
      `optax.contrib.simplified_ademamix`.
    """

    def step(g: Signal) -> Signal:
        m = g >> trace(b1, dtype=mu_dtype, name="mu")
        v = square(g) >> ema(b2, name="nu")
        return divide(m + scheduled(alpha) * g, debiased_root(v, b2, eps, eps_root), eps)

    return flow(step)


@method(
    "Morwani et al. 2025, Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated "
    "SGD Variants",
    arxiv="2502.02431",
    tags=("adam", "decoupled-decay"),
    learning_rate=3e-4,
)
@transformation()
def simplified_ademamix(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdEMAMix without a second momentum; the rule is that of `scale_by_simplified_ademamix`.

    Args:
      learning_rate: number or schedule.
      b1, b2, alpha, eps, eps_root, mu_dtype: see `scale_by_simplified_ademamix`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: see `scale_by_simplified_ademamix`.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import simplified_ademamix
      >>> opt = simplified_ademamix(0.5, alpha=1.0)
      >>> g = jnp.array([3.0, -2.0])
      >>> print(opt.update(g, opt.init(g))[0].round(3))
      [-1.  1.]
    """
    return chain(
        scale_by_simplified_ademamix(
            b1=b1, b2=b2, alpha=alpha, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype
        ),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

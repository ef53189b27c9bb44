"""APOLLO-Mini."""

import optax

from ...registry import method
from ...transforms import (
    AtLeastOne,
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Period,
    Sampler,
    Size,
    handed_on,
    transformation,
)
from .apollo import Projection, ScaleType, apollo


@method(
    "Zhu et al. 2024, APOLLO: SGD-like Memory, AdamW-level Performance",
    arxiv="2412.05270",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"update_interval": 10, "scale": 1.0},
)
@transformation()
def apollo_mini(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 1,
    update_interval: Period = 200,
    scale: NonNegative = 128.0,
    scale_type: ScaleType = "tensor",
    projection: Projection = "random",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    max_growth: AtLeastOne | None = 1.01,
    key: Key = 0,
    project: Mask | None = None,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """APOLLO-Mini: `apollo` with one direction, and one factor for each matrix.

        L_t = g_t p_t^T,   N_t = m_t / (sqrt(v_t) + eps)
        u_t = sqrt(1 - b2^t) / (1 - b1^t) sqrt(scale) limited(g_t |N_t| / (|L_t| + 1e-8))

    with `limited` as in `scale_by_apollo`.

    Args:
      learning_rate: number or schedule.
      rank, update_interval, scale, scale_type, projection, b1, b2, eps, weight_decay, max_growth,
        key, project, mask, sampler, mu_dtype, nu_dtype: see `apollo`.

    Returns:
      The optimizer. For an (m, n) matrix with m >= n its state is 2 m + 1.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import apollo_mini
      >>> opt = apollo_mini(0.5)
      >>> params = jnp.array([[4.0, 0.0], [2.0, 1.0]])
      >>> print(opt.update(params, opt.init(params))[0].astype(int))
      [[-13   0]
       [ -6  -3]]

    References:
      Zhu et al. 2024, APOLLO (arXiv 2412.05270); see `scale_by_apollo`.
    """
    return handed_on(apollo)

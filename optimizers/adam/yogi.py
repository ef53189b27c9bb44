"""Yogi."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    NonNegativeConstant,
    Signal,
    chain,
    debias,
    debiased_root,
    delay,
    divide,
    ema,
    flow,
    scale_by_learning_rate,
    scheduled,
    square,
    transformation,
    where,
)


@transformation()
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegativeConstant = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose second moment moves by g^2 towards g^2, however far away it is.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = v_{t-1} - (1 - b2) sign(v_{t-1} - g_t^2) g_t^2
        u_t = m_t / (1 - b1^t) / (sqrt(v_t / (1 - b2^t) + eps_root) + eps)

    After large gradients v comes down slowly, so that the rate cannot jump up.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: 1 minus the share of g^2 by which v moves, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      initial_accumulator_value: at which m and v start.
      mu_dtype: storage dtype of m; default at least float32.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization. Bias correction, and that m
      starts where v does, are Optax's, whose arguments these are.
    """

    def step(g: Signal) -> Signal:
        m = g >> ema(b1, start=initial_accumulator_value, dtype=mu_dtype, name="mu")
        past = delay(square(g), initial_accumulator_value, name="nu")
        towards = where(past > square(g), -square(g), where(past < square(g), square(g), 0.0))
        v = past << past + (1 - scheduled(b2)) * towards
        return divide(m >> debias(b1), debiased_root(v, b2, eps, eps_root), eps)

    return flow(step)


@method(
    "Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization",
    tags=("adam",),
    learning_rate=0.01,
)
@transformation()
def yogi(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    *,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegativeConstant = 1e-6,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Yogi, with the arguments of `optax.yogi`; the rule is that of `scale_by_yogi`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, eps_root, initial_accumulator_value, mu_dtype: see `scale_by_yogi`.
      nu_dtype: see `scale_by_yogi`.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import yogi
      >>> opt = yogi(0.5, initial_accumulator_value=0.0, eps=0.0)
      >>> g = jnp.array([3.0, -2.0])
      >>> print(opt.update(g, opt.init(g))[0].round(3))
      [-0.5  0.5]
    """
    return chain(
        scale_by_yogi(
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            initial_accumulator_value=initial_accumulator_value,
            mu_dtype=mu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )

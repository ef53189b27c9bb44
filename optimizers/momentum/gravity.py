"""Gravity."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...transforms import (
    Count,
    DType,
    Flow,
    Fraction,
    Key,
    NonNegativeConstant,
    Sampler,
    Signal,
    absolute,
    chain,
    ema,
    flow,
    handed_on,
    is_neutral,
    leaf_max,
    named,
    scale_by_learning_rate,
    square,
    step_count,
    transformation,
)
from ...transforms.trees import drawn_start


@transformation()
def scale_by_gravity(
    initial_scale: NonNegativeConstant = 0.1,
    beta: Fraction = 0.9,
    key: Key = 0,
    count_start: Count = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Momentum of gradients that are suppressed where they are large.

        z_t = g_t / (1 + (g_t max|g_t|)^2)                 (the maximum over the leaf)
        V_t = b_n V_{t-1} + (1 - b_n) z_t,    b_n = (beta n + 1) / (n + 2)

    n is `count_start` at the first step. The average begins with a short memory, which grows up to
    beta, and from a random velocity V_0 = initial_scale times a standard normal.

    Args:
      initial_scale: standard deviation of the initial velocity; exactly 0 starts at rest.
      beta: decay that the average tends to, in [0, 1].
      key: seed or key of the initial velocity.
      count_start: n at the first step; 1 for the authors' PyTorch code.
      sampler: `(key, count, params) -> tree` of standard normals in place of the draw; count is 0,
        once.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Bahrami & Pouriyan Zadeh 2021, Gravity Optimizer: a Kinematic Approach on Optimization in Deep
      Learning (arXiv 2101.09192), and the Keras version of dariush-bahrami/gravity.optimizer,
      which we follow; its PyTorch version counts from 1.
    """
    at_rest = is_neutral(initial_scale)
    start = None if at_rest else drawn_start(initial_scale, key, "gaussian", sampler)

    def step(g: Signal) -> Signal:
        n = step_count() + (count_start - 1)
        z = g / (1 + square(g * leaf_max(absolute(g))))
        return z >> named("velocity", ema((beta * n + 1) / (n + 2), start=start))

    return flow(step)


@method(
    "Bahrami & Pouriyan Zadeh 2021, Gravity Optimizer: a Kinematic Approach on Optimization in "
    "Deep Learning",
    arxiv="2101.09192",
    tags=("momentum", "noise"),
    learning_rate=0.1,
)
@transformation()
def gravity(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    alpha: NonNegativeConstant = 0.01,
    beta: Fraction = 0.9,
    key: Key = 0,
    count_start: Count = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Gravity; the rule is that of `scale_by_gravity`, started at the scale alpha / learning_rate.

    Args:
      learning_rate: number or schedule; its first value sets the scale of the initial velocity
        (none at all if that is 0).
      alpha: standard deviation of the first random step; 0 starts at rest.
      beta, key, count_start, sampler: see `scale_by_gravity`.
      mu_dtype: see `scale_by_gravity`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import gravity
      >>> opt = gravity(1.0, alpha=0.0)
      >>> params = jnp.array([1.0, -0.5])
      >>> updates, state = opt.update(params, opt.init(params))
      >>> [round(float(u), 3) for u in updates]
      [-0.25, 0.2]
    """
    first = learning_rate(0) if callable(learning_rate) else learning_rate
    at_rest = is_neutral(alpha)
    scale = 0.0 if at_rest else _ratio_or_zero(alpha, first)
    return chain(
        handed_on(scale_by_gravity, initial_scale=scale),
        scale_by_learning_rate(learning_rate),
    )


def _ratio_or_zero(alpha: float | jax.Array, rate: ArrayLike) -> float | jax.Array:
    if isinstance(rate, int | float):
        return alpha / rate if rate else 0.0
    return jnp.where(rate == 0, 0, alpha / jnp.where(rate == 0, 1, rate))

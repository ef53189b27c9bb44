"""ZO-AdaMU."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...transforms import (
    DType,
    Flow,
    Fraction,
    Key,
    Mask,
    NonNegative,
    Positive,
    Sampler,
    Signal,
    chain,
    checked,
    decay_weights,
    delay,
    flow,
    scale_by_learning_rate,
    scheduled,
    sign,
    sqrt,
    square,
    tap,
    transformation,
)
from ...transforms.trees import fold_key, stored_key
from ...transforms.zeroth_order import Directions, draw_direction, params_at, settled, slope_along


@checked()
def adamu_anneal(t1: int, t2: int, phi: float, end_value: float = 0.9) -> optax.Schedule:
    """The schedule of ZO-AdaMU: at 1, then falling along a cosine, then constant.

        1                                            t < t1
        0.5 + 0.5 cos(pi phi (t - t1) / (t2 - t1))   t1 <= t < t2
        end_value                                    t >= t2

    with t counted from 1.

    Args:
      t1: last step of the first phase, plus 1.
      t2: last step of the second phase, plus 1.
      phi: how far along the cosine it goes: 1 for alpha, 0.1 for b1, 1.5 for b2.
      end_value: where it stays.

    Returns:
      A function of the number of updates made before, 0 at the first step.

    Raises:
      ValueError: unless 1 <= t1 < t2.

    Example:
      >>> from gradchain.optimizers import adamu_anneal
      >>> alpha = adamu_anneal(11, 21, phi=1.0)
      >>> [round(float(alpha(count)), 3) for count in (0, 10, 15, 20)]
      [1.0, 1.0, 0.5, 0.9]

    References:
      Jiang et al. 2023 (arXiv 2312.15184). In MathIsAll/ZO-AdaMU the function shrinks a counter at
      every call, once per tensor, so its phases depend on the model; we take the formula.
    """
    if not 1 <= t1 < t2:
        raise ValueError(f"adamu_anneal: t1={t1!r}, t2={t2!r}; it must be 1 <= t1 < t2")

    def schedule(count: ArrayLike) -> jax.Array:
        t = jnp.asarray(count, jnp.result_type(float)) + 1.0
        falling = 0.5 + 0.5 * jnp.cos(jnp.pi * phi * (t - t1) / (t2 - t1))
        return jnp.where(t < t1, 1.0, jnp.where(t < t2, falling, end_value))

    return schedule


ALPHA, B1, B2 = (adamu_anneal(1024, 16_000, phi) for phi in (1.0, 0.1, 1.5))
"""The schedules of the authors' runs: phases up to step 1024, and up to 0.8 of 20 000 steps."""


@transformation()
def scale_by_zo_adamu(
    perturbation_scale: Positive = 1e-3,
    alpha: Fraction = ALPHA,
    b1: Fraction = B1,
    b2: Fraction = B2,
    eps: NonNegative = 1e-8,
    perturbation_mix: Fraction | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Zeroth-order steps along directions drawn around their own history.

        z_h = h_{t-1} + sqrt(1 - alpha) e_h,   z_c = sqrt(alpha) e_c,   e_h, e_c ~ N(0, I)
        m_t = b1 z_c + (1 - b1) z_h
        v_t = b2 z_c^2 + (1 - b2) z_h^2
        d_t = m_t,   or mix z_c + (1 - mix) z_h
        c_t = (L(theta + eps_p d_t) - L(theta - eps_p d_t)) / (2 eps_p)
        u_t = c_t m_t / sqrt(v_t + eps)
        h_t = sign(c_t) m_t,   h_0 = 0

    Nothing is averaged over time but h; equal losses set it to 0. With alpha = b1 = b2 = 1, the
    first phase of the default schedules, u is the slope along e_c times about its sign.

    Args:
      perturbation_scale: eps_p, in units of the params.
      alpha: variance of the centred part, in [0, 1]; number or schedule (0-based).
      b1: weight of the centred part in m, in [0, 1].
      b2: weight of its square in v, in [0, 1].
      eps: under the root.
      perturbation_mix: in [0, 1]; None probes along m (the paper), 0.1 is the authors' code.
      key: seed or key of the draws.
      sampler: `(key, count, params) -> {"history": tree, "current": tree}` of standard normals, e_h
        and e_c; count is 1 at the first step.
      mu_dtype: storage of h; default at least float32.

    References:
      Jiang et al. 2023, ZO-AdaMU Optimizer: Adapting Perturbation by the Momentum and Uncertainty
      in Zeroth-order Optimization (arXiv 2312.15184). As in MathIsAll/ZO-AdaMU, the history has the
      sign of the slope and v is not squared again under the root.
    """

    def normals(params: Signal, root: Signal, part: str, fold: int) -> Signal:
        drawn = None if sampler is None else partial(_part_of, sampler, part)
        return draw_direction(params, fold_key(root, fold), Directions("gaussian", drawn, 1))

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, slopes: Signal | None = None
    ) -> Signal:
        at, root = params_at(g, params), stored_key(key)
        a, r1, r2 = (scheduled(value) for value in (alpha, b1, b2))
        h = delay(at, 0.0, name="history", dtype=mu_dtype)
        z_h = h + sqrt(1 - a) * normals(at, root, "history", 1)
        z_c = sqrt(a) * normals(at, root, "current", 2)
        m = settled(r1 * z_c + (1 - r1) * z_h)
        v = r2 * square(z_c) + (1 - r2) * square(z_h)
        d = m
        if perturbation_mix is not None:
            mix = scheduled(perturbation_mix)
            d = mix * z_c + (1 - mix) * z_h
        c = tap("slopes", slope_along(value_fn, slopes, at, d, scheduled(perturbation_scale)))
        h << sign(c) * m
        return c * m / sqrt(v + scheduled(eps))

    return flow(step)


def _part_of(
    sampler: Any, part: str, key: jax.Array, count: jax.Array, params: optax.Params
) -> optax.Params:
    return sampler(key, count, params)[part]


@method(
    "Jiang et al. 2023, ZO-AdaMU Optimizer: Adapting Perturbation by the Momentum and Uncertainty "
    "in Zeroth-order Optimization",
    arxiv="2312.15184",
    tags=("adam", "closure", "noise"),
    learning_rate=0.012,
)
@transformation()
def zo_adamu(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    alpha: Fraction = ALPHA,
    b1: Fraction = B1,
    b2: Fraction = B2,
    eps: NonNegative = 1e-8,
    perturbation_mix: Fraction | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """ZO-AdaMU; the rule is that of `scale_by_zo_adamu`.

    Args:
      learning_rate: number or schedule.
      perturbation_scale, alpha, b1, b2, eps, perturbation_mix, key, sampler: see
        `scale_by_zo_adamu`; `adamu_anneal` builds schedules for runs of other lengths.
      weight_decay: multiplied by the rate, on the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype: see `scale_by_zo_adamu`.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`, and may be given None as gradient. Its
      state is the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import zo_adamu
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = zo_adamu(0.05), jnp.array([1.0, -2.0])
      >>> state = opt.init(x)
      >>> for _ in range(50):
      ...     u, state = opt.update(None, state, x, value_fn=loss)
      ...     x = optax.apply_updates(x, u)
      >>> bool(loss(x) < 1.0)
      True
    """
    direction = scale_by_zo_adamu(
        perturbation_scale=perturbation_scale,
        alpha=alpha,
        b1=b1,
        b2=b2,
        eps=eps,
        perturbation_mix=perturbation_mix,
        key=key,
        sampler=sampler,
        mu_dtype=mu_dtype,
    )
    return chain(
        direction,
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

"""ADOPT."""

from collections.abc import Callable

import jax
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Signal,
    chain,
    clip,
    delay,
    divide_or_zero,
    flow,
    lift,
    maximum,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
    where,
)


def fourth_root(count: jax.Array) -> jax.Array:
    """The bound of ADOPT's normalised gradients: count^(1/4)."""
    return count**0.25


@transformation()
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], ArrayLike] = fourth_root,
    nu_dtype: DType | None = None,
) -> Flow:
    """Momentum of gradients that were divided by the second moment of those before them.

        c_t = g_t / max(sqrt(v_{t-1}), eps),   clipped entry by entry to clip_value_fn(t - 1)
        m_t = b1 m_{t-1} + (1 - b1) c_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = m_t,   or  b1 m_t + (1 - b1) c_t  with `nesterov`

    The first step only fills v with g_1^2 where `use_clipping` is on: the bound is then 0.
    Dividing by what is independent of g_t makes it converge for any b2.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: the least divisor.
      mu_dtype: storage dtype of m; default at least float32.
      nesterov: look ahead along the momentum.
      use_clipping: clip c.
      clip_value_fn: function from the number of steps made before to the bound.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Taniguchi et al. 2024, ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate
      (arXiv 2411.02853). As in Optax, whose arguments these are, m takes the whole c_1 at the first
      step, which without clipping is g_1 / eps.
    """

    def step(g: Signal) -> Signal:
        first = step_count() == 1
        v, m = delay(square(g), name="nu"), delay(g, name="mu", dtype=mu_dtype)
        c = divide_or_zero(g, maximum(sqrt(v), eps))
        if use_clipping:
            bound = lift(clip_value_fn, "clip_value")(step_count() - 1.0)
            c = clip(c, -bound, bound)
        v << where(first, 0.0, b2) * v + where(first, 1.0, 1 - scheduled(b2)) * square(g)
        keep, take = where(first, 1.0, b1), where(first, 0.0, 1 - scheduled(b1))
        new = m << keep * m + take * c
        return keep * new + take * c if nesterov else new

    return flow(step)


@method(
    "Taniguchi et al. 2024, ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate",
    arxiv="2411.02853",
    tags=("adam", "bounded"),
    learning_rate=0.01,
)
@transformation()
def adopt(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], ArrayLike] = fourth_root,
    nu_dtype: DType | None = None,
) -> Flow:
    """ADOPT, with the arguments of `optax.contrib.adopt`; the rule is that of `scale_by_adopt`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, mu_dtype, nesterov, use_clipping, clip_value_fn: see `scale_by_adopt`.
      nu_dtype: see `scale_by_adopt`.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adopt
      >>> opt = adopt(1.0, b1=0.5)
      >>> g = jnp.array([3.0, -2.0])
      >>> _, state = opt.update(g, opt.init(g))
      >>> print(opt.update(g, state)[0].round(3))
      [-0.5  0.5]
    """
    return chain(
        scale_by_adopt(
            b1=b1,
            b2=b2,
            eps=eps,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
            use_clipping=use_clipping,
            clip_value_fn=clip_value_fn,
        ),
        scale_by_learning_rate(learning_rate),
    )

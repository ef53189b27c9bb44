"""Clipping of the largest gradient entries."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Fraction,
    NonNegative,
    Signal,
    chain,
    debias,
    debiased_root,
    divide,
    ema,
    flow,
    handed_on,
    lift,
    named,
    scale_by_learning_rate,
    square,
    transformation,
)
from ...transforms.shape import largest_magnitude

Scope = Literal["global", "leaf"]

PAPER = "Pan & Li 2023, Toward Understanding Why Adam Converges Faster Than SGD for Transformers"


@method(
    PAPER,
    arxiv="2306.00204",
    tags=("bounded", "heavy-tails"),
    in_front=True,
)
@transformation()
def coordinate_clipping(
    fraction: Fraction = 0.1, threshold_scale: NonNegative = 1.0, scope: Scope = "global"
) -> Flow:
    r"""Clips the given fraction of the gradient's entries, the largest ones, at the next largest.

    .. math::
        \tau = c \cdot |g|_{(\lfloor n f \rfloor)}, \qquad
        g_i \leftarrow \mathrm{clip}(g_i, -\tau, \tau)

    with the n absolute values in falling order, counted from 0. It stands in front of an
    optimizer; at the end of a chain it clips updates. A fraction of 0 clips nothing, one of 1
    leaves nothing.

    Args:
      fraction: f, in [0, 1]; about 0.1 suits SGD, 0.5 adaptive methods.
      threshold_scale: c.
      scope: "global" orders the entries of the whole tree, "leaf" those of each leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import coordinate_clipping
      >>> opt = coordinate_clipping(fraction=0.5)
      >>> g = jnp.array([1.0, -2.0, 3.0, -4.0])
      >>> opt.update(g, opt.init(g))[0].tolist()
      [1.0, -2.0, 2.0, -2.0]

    References:
      Pan & Li 2023, Toward Understanding Why Adam Converges Faster Than SGD for Transformers
      (arXiv 2306.00204).
    """

    def step(g: Signal) -> Signal:
        tau = threshold_scale * largest_magnitude(g, fraction, scope)
        return lift(_clipped, "clip")(g, tau, fraction)

    return flow(step)


def _clipped(g: jax.Array, tau: jax.Array, share: float | jax.Array) -> jax.Array:
    above = (jnp.abs(g) > tau) & (share > 0)
    return jnp.where(above, jnp.sign(g) * tau, g)


@transformation()
def scale_by_coordinate_clipped_adam(
    fraction: Fraction = 0.5,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    threshold_scale: NonNegative = 1.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose momentum alone sees the gradient after `coordinate_clipping`.

    Args:
      fraction, threshold_scale: see `coordinate_clipping`.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, which sees the unclipped gradient, in [0, 1).
      eps: added to the debiased root.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Pan & Li 2023, Toward Understanding Why Adam Converges Faster Than SGD for Transformers
      (arXiv 2306.00204).
    """

    def step(g: Signal) -> Signal:
        m = g >> coordinate_clipping(fraction, threshold_scale) >> named("mu", ema(b1))
        v = square(g) >> named("nu", ema(b2))
        return divide(m >> debias(b1), debiased_root(v, b2, eps), eps)

    return flow(step)


@method(
    PAPER,
    arxiv="2306.00204",
    tags=("bounded", "heavy-tails", "adam"),
    learning_rate=1e-2,
)
@transformation()
def coordinate_clipped_adam(
    learning_rate: optax.ScalarOrSchedule,
    fraction: Fraction = 0.5,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    threshold_scale: NonNegative = 1.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Coordinate-clipped Adam; the rule is that of `scale_by_coordinate_clipped_adam`.

    Args:
      learning_rate: number or schedule.
      fraction, b1, b2, eps, threshold_scale: see `scale_by_coordinate_clipped_adam`.
      mu_dtype, nu_dtype: see `scale_by_coordinate_clipped_adam`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import coordinate_clipped_adam
      >>> opt = coordinate_clipped_adam(0.5)
      >>> params = jnp.zeros(2)
      >>> opt.update(jnp.array([1.0, -2.0]), opt.init(params))[0].round(3).tolist()
      [-0.5, 0.25]
    """
    return chain(
        handed_on(scale_by_coordinate_clipped_adam),
        scale_by_learning_rate(learning_rate),
    )

"""SM3."""

import functools

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
    delay,
    divide_or_zero,
    ema,
    flow,
    lift,
    scale_by_learning_rate,
    sqrt,
    square,
    transformation,
)
from ...transforms.notation.roots import maximum_over


@transformation()
def scale_by_sm3(
    b1: Decay = 0.9,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaGrad that remembers, of its sums of squares, the largest along every dimension.

    For a leaf with the entries i, each covered by one slice r per dimension:

        v_t(i) = b2 min over the r that hold i of a_{t-1}(r) + w g_t(i)^2
        a_t(r) = max over the i in r of v_t(i),    w = 1 if b2 = 1 else 1 - b2
        m_t = b1 m_{t-1} + (1 - b1) g_t / sqrt(v_t + eps)
        u_t = m_t

    An (n, m) matrix thus keeps n + m numbers, a vector, whose slices are its entries, AdaGrad's
    sums. What is 0/0 is 0.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the sums, in [0, 1]; 1 for none.
      eps: added under the root.
      mu_dtype: storage dtype of m; default at least float32.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Anil et al. 2019, Memory-Efficient Adaptive Optimization (arXiv 1901.11150): Algorithm SM3-II.
      The arguments are those of `optax.scale_by_sm3`.
    """

    def step(g: Signal) -> Signal:
        largest = delay(_largest(square(g)), name="accumulators")
        share = lift(lambda decay: jnp.where(jnp.asarray(decay) < 1, 1.0 - decay, 1.0), "share")
        weight = (1.0 if b2 == 1 else 1.0 - b2) if isinstance(b2, int | float) else share(b2)
        v = weight * square(g) + b2 * _least(largest, g)
        largest << _largest(v)
        return divide_or_zero(g, sqrt(v + eps)) >> ema(b1, dtype=mu_dtype, name="mu")

    return flow(step)


def _slices_largest(v: jax.Array) -> tuple[jax.Array, ...]:
    if v.ndim < 2:
        return (v,)
    axes = range(v.ndim)
    others = (tuple(other for other in axes if other != axis) for axis in axes)
    return tuple(maximum_over(v, other, keepdims=True) for other in others)


def _slices_least(largest: tuple[jax.Array, ...], g: jax.Array) -> jax.Array:
    return jnp.broadcast_to(functools.reduce(jnp.minimum, largest), g.shape)


_largest = lift(_slices_largest, "largest_of_slices")
_least = lift(_slices_least, "least_of_slices")


@method(
    "Anil et al. 2019, Memory-Efficient Adaptive Optimization",
    arxiv="1901.11150",
    tags=("low-memory", "sums", "momentum"),
    learning_rate=0.05,
)
@transformation()
def sm3(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    *,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """SM3, with the arguments of `optax.sm3`; the rule is that of `scale_by_sm3`.

    Args:
      learning_rate: number or schedule.
      momentum: b1 of `scale_by_sm3`.
      b2, eps, mu_dtype: see there.
      nu_dtype: see `scale_by_sm3`.

    Returns:
      The optimizer; its state is the size of the params, and the lengths of their dimensions.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sm3
      >>> opt = sm3(1.0, momentum=0.5)
      >>> g = jnp.array([[3.0, -4.0]])
      >>> _, state = opt.update(g, opt.init(g))
      >>> [f"{u:.3f}" for u in opt.update(g, state)[0].ravel()]
      ['-0.604', '0.604']
    """
    return chain(
        scale_by_sm3(b1=momentum, b2=b2, eps=eps, mu_dtype=mu_dtype),
        scale_by_learning_rate(learning_rate),
    )

"""M-ConFIG: ConFIG from momenta, one objective's gradient at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Hyperparameter,
    NonNegative,
    Signal,
    Size,
    chain,
    delay,
    divide,
    flow,
    lift,
    lift_tree,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
    where,
)
from ...transforms.accumulate import one_minus_power
from ...transforms.notation import handed_on
from ...transforms.objectives import bare_array
from .config import Length, config


@transformation()
def scale_by_m_config(
    n_objectives: Size,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    length: Length | int = "projection",
    aggregator: optax.GradientTransformation | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""Adam whose momentum is the ConFIG direction of one momentum per objective.

    Of one objective's gradient g at a time, objective i, seen :math:`k_i` times:

    .. math::
        m_i &\leftarrow \beta_1 m_i + (1 - \beta_1) g \\
        G &= \mathrm{config}(m_1 / (1 - \beta_1^{k_1}), \ldots, m_n / (1 - \beta_1^{k_n})) \\
        f_\tau &= (1 - \beta_1^\tau) G, \qquad
        h = \frac{f_\tau - \beta_1 f_{\tau-1}}{1 - \beta_1} \\
        s &\leftarrow \beta_2 s + (1 - \beta_2) h^2, \qquad
        u = \frac{G}{\sqrt{s / (1 - \beta_2^\tau)} + \epsilon}

    h is the gradient of which a single momentum would have been G. Until every objective has been
    seen once the direction is zero, and :math:`\tau`, which counts the steps after that, stays 0.

    Args:
      n_objectives: n.
      b1: decay of the momenta, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the debiased root.
      length: see `config`.
      aggregator: of the momenta; default `config(length=length)`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Liu, Chu & Thuerey 2024, ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks (arXiv 2408.11104), and PseudoMomentumOperator of the authors' package conflictfree.
    """
    inner = config(length=length) if aggregator is None else aggregator

    def step(g: Signal, index: Signal | None = None) -> Signal:
        number = _which(bare_array(index), step_count(), count=n_objectives)
        momenta, visits = _momenta(g, number, b1, n_objectives)
        ready = lift(lambda k: jnp.all(k > 0), "all_seen")(visits)
        steps = delay(0, name="steps")
        tau = steps << steps + ready
        G = momenta >> inner
        summed = delay(G, name="summed_momentum")
        f = summed << where(ready, G * one_minus_power(b1, tau), summed)
        h = (f - b1 * summed) / (1 - scheduled(b1))
        nu = delay(G, name="nu")
        s = nu << where(ready, b2 * nu + (1 - scheduled(b2)) * square(h), nu)
        correction = where(ready, one_minus_power(b2, tau), 1.0)
        u = divide(G, sqrt(s / correction) + eps, eps)
        return where(ready, u, 0.0)

    return flow(step)


def _which(index: Signal | None, t: Signal, count: int) -> Signal:
    """The numbers of the objectives whose gradients came, as a vector."""

    def numbers(given: int | jax.Array, t: jax.Array) -> jax.Array:
        return jnp.atleast_1d((t - 1) % count if given is None else jnp.asarray(given))

    return lift(numbers, "index")(index, t)


def _momenta(g: Signal, number: Signal, b1: Hyperparameter, count: int) -> tuple[Signal, Signal]:
    """The debiased momenta of all objectives, stacked, and how often each was seen."""
    past = delay(lift(lambda x: jnp.stack([jnp.zeros_like(x)] * count), "stacked")(g), name="mu")
    visits = delay(np.zeros(count, np.int32), name="visits")
    one = jax.ShapeDtypeStruct((count, 1), jnp.bool_)  # before `update` says how many there are
    equals = lift_tree(
        lambda n: jnp.arange(count)[:, None] == n[None, :], "chosen", out=lambda *_: one
    )
    chosen = equals(number)
    seen = visits << visits + lift(lambda c: jnp.sum(c, axis=1), "visits")(chosen)
    m = past << lift(_moved, "momenta")(past, g, chosen, b1)
    return lift(_debiased, "debias")(m, seen, b1), seen


def _moved(past: jax.Array, g: jax.Array, chosen: jax.Array, b1: float | jax.Array) -> jax.Array:
    """The momenta, of which those that are chosen take a gradient in."""
    each = g[None] if g.ndim < past.ndim else g
    spread = jnp.tensordot(chosen.astype(each.dtype), each, axes=1, precision="highest")
    is_chosen = jnp.any(chosen, axis=1).reshape(-1, *[1] * (past.ndim - 1))
    return jnp.where(is_chosen, b1 * past + (1 - b1) * spread, past)


def _debiased(m: jax.Array, visits: jax.Array, b1: float | jax.Array) -> jax.Array:
    real = jnp.finfo(m.dtype).dtype
    correction = 1 - jnp.asarray(b1, real) ** jnp.maximum(visits, 1).astype(real)
    return m / correction.reshape(-1, *[1] * (m.ndim - 1))


@method(
    "Liu, Chu & Thuerey 2024, ConFIG: Towards Conflict-free Training of Physics Informed "
    "Neural Networks",
    arxiv="2408.11104",
    tags=(
        "several-losses",
        "adam",
        "momentum",
    ),
    learning_rate=1e-2,
    required={"n_objectives": 2},
)
@transformation()
def m_config(
    learning_rate: optax.ScalarOrSchedule,
    n_objectives: Size,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    length: Length | int = "projection",
    aggregator: optax.GradientTransformation | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """M-ConFIG; the rule is that of `scale_by_m_config`.

    A whole optimizer: each step takes the gradient of one objective, so that it costs one
    back-propagation. The extra argument `index` says which; by default they take turns, objective 0
    first. Several at once are given as gradients with a leading axis and a vector of numbers.

    Args:
      learning_rate: number or schedule.
      n_objectives, b1, b2, eps, length, aggregator: see `scale_by_m_config`.
      mu_dtype, nu_dtype: see `scale_by_m_config`.

    Returns:
      The optimizer; its state is n_objectives + 2 times the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import m_config
      >>> opt = m_config(0.5, n_objectives=2)
      >>> params = jnp.zeros(2)
      >>> state = opt.init(params)
      >>> u, state = opt.update(jnp.array([1.0, 0.0]), state, params, index=0)
      >>> bool((u == 0).all())                        # nothing is known yet of objective 1
      True
      >>> u, state = opt.update(jnp.array([0.0, 3.0]), state, params, index=1)
      >>> print(u.round(3))
      [-0.5 -0.5]
    """
    return chain(handed_on(scale_by_m_config), scale_by_learning_rate(learning_rate))

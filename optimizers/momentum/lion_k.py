"""Lion-K: Lion for other norms."""

from collections.abc import Callable

import jax
import optax

from ...registry import method
from ...transforms import (
    AtLeastOne,
    Decay,
    DType,
    Flow,
    Interval,
    Mask,
    NonNegative,
    Positive,
    chain,
    decay_weights,
    flow,
    handed_on,
    interpolated_momentum,
    named,
    scale_by_learning_rate,
    transformation,
)
from .subgradients import Kappa, subgradient

at_least_1 = Interval(1.0, float("inf"))


@transformation()
def scale_by_lion_k(
    kappa: Kappa | Callable[[jax.Array], jax.Array] = "l1",
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    power: AtLeastOne = 2.0,
    delta: Positive = 1.0,
    threshold: NonNegative = 0.0,
    mu_dtype: DType | None = None,
) -> Flow:
    """A subgradient of a convex function K at Lion's momentum, leaf by leaf.

        c_t = b1 m_{t-1} + (1 - b1) g_t
        m_t = b2 m_{t-1} + (1 - b2) g_t
        u_t = dK(c_t)

    With a decay w of the weights it minimises f(x) + K*(w x) / w, K* the conjugate of K: a norm
    becomes the constraint that its dual norm of x is at most 1/w.

    Args:
      kappa: which K: "l1" (Lion itself), "l2", "lp", "linf", "group_l2", "huber", "trunc_l1",
        "nuclear", "quadratic", see `subgradient`; or a function that gives the subgradient of a
        leaf.
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      power: p of "lp", at least 1.
      delta: width of "huber".
      threshold: of "trunc_l1".
      mu_dtype: storage dtype of m.

    References:
      Chen, Liu, Liang & Liu 2023, Lion Secretly Solves Constrained Optimization: As Lyapunov
      Predicts (arXiv 2310.05898); there is no official code. The paper takes all parameters for
      one vector and its momentum averages -g. "nuclear" was seen later to belong to the family.
    """
    return flow(
        lambda g: subgradient(
            g >> named("mu", interpolated_momentum(b1, b2, dtype=mu_dtype)),
            *(kappa, power, delta, threshold),
        ),
        name="scale_by_lion_k",
    )


@method(
    "Chen, Liu, Liang & Liu 2023, Lion Secretly Solves Constrained Optimization: As Lyapunov "
    "Predicts",
    arxiv="2310.05898",
    tags=("sign", "momentum", "decoupled-decay", "low-memory"),
)
@transformation()
def lion_k(
    learning_rate: optax.ScalarOrSchedule,
    kappa: Kappa | Callable[[jax.Array], jax.Array] = "l1",
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    power: AtLeastOne = 2.0,
    delta: Positive = 1.0,
    threshold: NonNegative = 0.0,
    mu_dtype: DType | None = None,
) -> Flow:
    """Lion-K with decoupled weight decay; the rule is that of `scale_by_lion_k`.

    Args:
      learning_rate: number or schedule.
      kappa, b1, b2, power, delta, threshold, mu_dtype: see `scale_by_lion_k`.
      weight_decay: decoupled decay, multiplied by the rate; 0 leaves nothing of the constraint.
      mask: leaves that decay; default all.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import lion_k
      >>> opt = lion_k(1.0, kappa="l2")
      >>> params = jnp.array([3.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params))
      >>> [round(float(u), 3) for u in updates]
      [-0.6, 0.8]
    """
    return chain(
        handed_on(scale_by_lion_k),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

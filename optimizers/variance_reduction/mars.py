"""MARS: the variance-reduced gradient, around any optimizer."""

import jax
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Mask,
    NonNegative,
    Number,
    Positive,
    Signal,
    chain,
    decay_weights,
    flow,
    partition,
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    transformation,
)
from ...transforms.step_size import relative_rate
from .correction import mars_correction


@method(
    "Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models",
    arxiv="2411.10438",
    tags=("tracked-mean",),
)
@transformation()
def mars(
    inner: optax.GradientTransformation,
    gamma: Number = 0.025,
    b1: Decay = 0.95,
    exact: bool = False,
    max_norm: Positive | None = 1.0,
) -> Flow:
    """Hands an optimizer gradients with less variance.

        c_t = g_t + gamma b1 / (1 - b1) (g_t - p_t)
        update = inner(c_t / max(1, |c_t| / max_norm))       the norm leaf by leaf

    Args:
      inner: any transformation.
      gamma: strength of the correction.
      b1: decay of the momentum of the inner transformation, in [0, 1).
      exact: p_t is the extra input `previous_grads`, the gradient of this batch at the previous
        params; otherwise the gradient of the last step, zero at first.
      max_norm: largest norm of a leaf of c; None does not clip.

    Returns:
      The wrapped transformation; its state is one more copy of the gradient, none if `exact`.

    Raises:
      ValueError: for a hyper-parameter out of range, or without `previous_grads` if `exact`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mars, sgd
      >>> opt = mars(sgd(1.0), gamma=1.0, b1=0.5)
      >>> g = jnp.array([0.25])
      >>> u, state = opt.update(g, opt.init(g))
      >>> u.tolist(), opt.update(g, state)[0].tolist()
      ([-0.5], [-0.25])

    References:
      Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models
      (arXiv 2411.10438), and the authors' code.
    """
    return chain(mars_correction(gamma, b1, exact, max_norm), inner)


def for_matrices(
    direction: optax.GradientTransformation,
    b1_1d: Decay,
    b2_1d: Decay,
    eps: NonNegative,
    optimize_1d: bool,
    other: optax.GradientTransformation | None = None,
) -> Flow:
    """Sends matrices one way, and the other leaves through Adam, or `other` if `optimize_1d`."""
    rest = (other or direction) if optimize_1d else scale_by_adam(b1_1d, b2_1d, eps)
    return partition({"matrices": direction, "rest": rest}, _kinds)


def _kinds(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda leaf: "matrices" if leaf.ndim == 2 else "rest", params)


def descend(
    direction: Flow,
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: NonNegative,
    optimize_1d: bool,
    learning_rate_1d: optax.ScalarOrSchedule,
    weight_decay_1d: NonNegative,
    mask: Mask,
) -> Flow:
    """Goes down along a direction of `for_matrices`, each kind of leaf at its rate and decay."""
    if optimize_1d:
        decayed = decay_weights(weight_decay, mask=mask)
        return chain(direction, decayed, scale_by_learning_rate(learning_rate))

    def follow(u: Signal) -> Signal:
        rate_1d = scheduled(learning_rate_1d)
        if not callable(learning_rate_1d):
            remedy = "give learning_rate_1d as a schedule of its own"
            rate_1d = rate_1d * relative_rate(learning_rate, label="mars", remedy=remedy)
        return -rate_1d * u

    at_rate = scale_by_learning_rate(learning_rate)
    groups = {
        "matrices": chain(decay_weights(weight_decay, mask=mask), at_rate),
        "rest": chain(decay_weights(weight_decay_1d, mask=mask), flow(follow)),
    }
    return chain(direction, partition(groups, _kinds))

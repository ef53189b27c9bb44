"""Riemannian stochastic gradient descent."""

from typing import Any, Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    NonNegative,
    Number,
    Period,
    Signal,
    decay_weights,
    delay,
    flow,
    scheduled,
    step_count,
    transformation,
    where,
)
from ...transforms.manifolds import Manifolds, OnManifolds
from ...transforms.notation import is_neutral


@method(
    "Bonnabel 2013, Stochastic Gradient Descent on Riemannian Manifolds",
    arxiv="1111.5280",
    tags=("manifolds", "momentum", "nesterov"),
    learning_rate=0.1,
)
@transformation()
def rsgd(
    learning_rate: optax.ScalarOrSchedule,
    manifolds: Manifolds = None,
    momentum: Decay = 0.0,
    dampening: Number = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    stabilize: Period | None = None,
    momentum_init: Literal["gradient", "zeros"] = "gradient",
) -> Flow:
    r"""Gradient descent on manifolds, with momentum that is carried along.

    With the Riemannian gradient grad, the retraction R and the transport T of each leaf's manifold:

    .. math::
        r &= \operatorname{grad}(x, g + \lambda x), \qquad
        m \leftarrow \mu m + (1 - \tau) r, \qquad d = m \\
        y &= R_x(-\eta d), \qquad m \leftarrow T_{x \to y} m, \qquad x \leftarrow y

    where :math:`d = r + \mu m` with nesterov, and d = r without momentum.

    Args:
      learning_rate: eta; number or schedule.
      manifolds: of each leaf: one for all, such as `transforms.manifolds.sphere()`; a tree of them,
        shaped like the params or a part of them; or a function of the params that gives one, such
        as `manifolds_by_path(rule)`. Leaves without an entry are Euclidean.
      momentum: mu, in [0, 1); 0 keeps no buffer.
      dampening: tau, the share of a gradient that is left out of the buffer.
      nesterov: look ahead along the momentum.
      weight_decay: lambda; pulls towards the origin of the space around, so that on a sphere it
        does nothing.
      stabilize: every how many steps points and momenta are put on the manifold again. Retractions
        here do not let rounding add up; it is for points that were moved by something else.
      momentum_init: the buffer before the first step: the "gradient" g itself, neither decayed nor
        made Riemannian, as geoopt has it, so that the first direction is mu g + (1 - tau) r, which
        is not tangent: with `exact` spheres and frames it leads off them, as there, unless
        `stabilize` puts the points back; or "zeros", the textbook's.

    Returns:
      The optimizer; it needs `params`, which stay on their manifolds (but see `momentum_init`).
      Put nothing behind it in a chain. Its state is one copy of the params with momentum.

    Raises:
      ValueError: for a hyper-parameter out of range; in `init`, for manifolds that do not fit the
        params, an entry that belongs to no leaf, or a point off its manifold (where the values are
        known, so not under jit).

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import rsgd
      >>> from gradchain.transforms.manifolds import sphere
      >>> opt, x = rsgd(1.0, sphere()), jnp.array([1.0, 0.0])
      >>> updates, _ = opt.update(jnp.array([5.0, -1.0]), opt.init(x), x)
      >>> print((x + updates).round(3))
      [0.707 0.707]

    References:
      Bonnabel 2013, Stochastic Gradient Descent on Riemannian Manifolds (arXiv 1111.5280); momentum
      as in geoopt's RiemannianSGD.
    """
    M = OnManifolds("rsgd", manifolds)

    def step(g: Signal, params: Signal) -> Signal:
        x = M.checked(params)
        r = M.gradient(x, g >> decay_weights(weight_decay))
        rate = scheduled(learning_rate)
        if is_neutral(momentum):
            return M.travel(x, -rate * r, stabilize)[0] - x
        buffer = delay(g, name="momentum")
        past = where(step_count() == 1, g, buffer) if momentum_init == "gradient" else buffer
        mu = scheduled(momentum)
        m = mu * past + (1 - scheduled(dampening)) * r
        d: Any = r + mu * m if nesterov else m
        y, carried = M.travel(x, -rate * d, stabilize)
        buffer << carried(m)
        return y - x

    return flow(step)

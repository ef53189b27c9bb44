"""Any direction on manifolds."""

from typing import Any

import optax

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.hyperparameters import NonNegative, Period
from ..notation.scope import current_builder
from ..notation.signal import Delay, Signal
from ..notation.steps import scheduled
from ..step_size import decay_weights
from .assigned import Manifolds, OnManifolds

TANGENT = ("ema", "momentum", "mu", "trace")


@transformation()
def riemannian(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    manifolds: Manifolds = None,
    *,
    weight_decay: NonNegative = 0.0,
    stabilize: Period | None = None,
    tangent: tuple[str, ...] = TANGENT,
) -> Flow:
    r"""Lets a direction move on manifolds.

    A transformation to send signals through.

    .. math::
        r = \operatorname{grad}(x, g), \qquad d = P_x(\mathrm{inner}(r)), \qquad
        x \leftarrow R_x(-\eta d)

    with the Riemannian gradient, the projection P to the tangent space and the retraction R of each
    leaf's manifold. The inner states that are tangent vectors, momenta, are carried along from
    point to point. For directions that are linear in gradients past and present, such as `trace`,
    `momentum` and their Nesterov forms, this is the Riemannian method of that name. Others run and
    stay on the manifold, too, but what they do entry by entry (Adam's second moment, a sign)
    depends on the coordinates; `riemannian_adam` is the form that does not.

    Args:
      inner: a direction, such as `scale_by_sgd(0.9)`, without learning rate and decay.
      learning_rate: eta; number or schedule.
      manifolds: of each leaf; see `Manifolds`.
      weight_decay: times the params, added to the gradient before it is made Riemannian.
      stabilize: every how many steps points and momenta are put on the manifold again.
      tangent: names of the inner states that are carried along.

    Raises:
      ValueError: for manifolds that do not fit the params, or points that are off them.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import scale_by_sgd
      >>> from gradchain.transforms.manifolds import riemannian, sphere
      >>> opt, x = riemannian(scale_by_sgd(0.9), 1.0, sphere()), jnp.array([1.0, 0.0])
      >>> updates, state = opt.update(jnp.array([5.0, -1.0]), opt.init(x), x)
      >>> print((x + updates).round(3))
      [0.707 0.707]
    """
    M = OnManifolds("riemannian", manifolds)

    def step(g: Signal, params: Signal) -> Signal:
        x = M.checked(params)
        r = M.gradient(x, g >> decay_weights(weight_decay))
        before = len(current_builder().delays)
        d = M.tangent(x, r >> inner)
        y, carried = M.travel(x, -scheduled(learning_rate) * d, stabilize)
        for state in current_builder().delays[before:]:
            if _name_of(state) in tangent:
                state.written = carried(state.written)
        return y - x

    return flow(step)


def _name_of(state: Delay) -> str:
    """The name that was chosen for a state, or that of the nearest transformation around it."""
    if state.explicit:
        return state.hint
    scope: Any = state.scope
    nearest = scope.hint
    while scope is not None and not scope.explicit:
        scope = scope.parent
    return nearest if scope is None else scope.hint

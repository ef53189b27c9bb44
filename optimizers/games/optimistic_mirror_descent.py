"""Optimistic online mirror descent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Hyperparameter,
    NonNegative,
    Positive,
    Scalar,
    Signal,
    delay,
    exp,
    flow,
    global_norm,
    hypot,
    lift,
    scheduled,
    sqrt,
    transformation,
)
from ...transforms.closures import mapped_tree
from ...transforms.notation.roots import log_softmax
from ...transforms.projections import check_projection, onto
from ...transforms.projections.applied import Projection


@dataclass(frozen=True)
class _Euclidean:
    """Distances are Euclidean: a mirror step is a projected gradient step."""

    projection: Projection | None

    def start(self, x: Any) -> Any:
        return jnp.array(x, copy=True)

    def move(self, x: Signal, step: Signal) -> Signal:
        return onto(self.projection, x - step)

    def point(self, x: Signal) -> Signal:
        return x


@dataclass(frozen=True)
class _Entropy:
    """Distances are relative entropies: a mirror step multiplies probabilities.

    Points are kept as logarithms, in which none can reach zero for ever.
    """

    def start(self, x: jax.Array) -> jax.Array:
        return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))

    def move(self, x: Signal, step: Signal) -> Signal:
        return lift(_log_softmax, "log_softmax")(x - step)

    def point(self, x: Signal) -> Signal:
        return exp(x)


def _log_softmax(x: jax.Array) -> jax.Array:
    return log_softmax(jnp.atleast_1d(x)).reshape(x.shape)


@method(
    "Chen, Tu, Zhao & Zhang 2023, Optimistic Online Mirror Descent for Bridging Stochastic and "
    "Adversarial Online Convex Optimization",
    arxiv="2302.04552",
    tags=("evaluation-weights", "games", "own-rate"),
    learning_rate=0.1,
)
@transformation()
def optimistic_mirror_descent(
    learning_rate: optax.ScalarOrSchedule | None = None,
    mirror: Literal["euclidean", "entropy"] = "euclidean",
    projection: Projection | None = None,
    hint: Literal["last_gradient"] | Callable[[Any], optax.Updates] = "last_gradient",
    diameter: Positive = 1.0,
    gradient_bound: NonNegative = 1.0,
    delta: Positive = 1.0,
) -> Flow:
    r"""Mirror descent that plays ahead, as if it knew the next gradient.

    With played points x, secondary points :math:`\hat x`, hints M and the divergence B of the
    mirror map,

    .. math::
        x_t = \operatorname*{argmin}_x \langle M_t, x \rangle + B(x, \hat x_t) / \eta_t, \qquad
        \hat x_{t+1} = \operatorname*{argmin}_x \langle g_t, x \rangle + B(x, \hat x_t) / \eta_t,
        \qquad M_1 = 0, \quad M_{t+1} = g_t

    over the set. The params of the training loop are the played points, where gradients are taken;
    `eval_params(state, params)` gives the secondary one. Without a learning rate it is

    .. math::
        \eta_t = \frac{D}{\sqrt{\delta + 4 G^2 + V_{t-1}}}, \qquad
        V_t = \sum_{s \le t} \|g_s - g_{s-1}\|^2, \quad g_0 = 0

    with norms over the whole tree.

    Args:
      learning_rate: eta, number or schedule; default the adaptive one. For losses that are strongly
        convex with modulus mu, 2 / (mu t).
      mirror: "euclidean", for which the steps are projected gradient steps, or "entropy", for which
        every vector along the last axis is a point of the simplex and
        :math:`\hat x \leftarrow \hat x e^{-\eta g}`, normalised. Its rates are in units of one over
        the largest gradient entry; the params must start on the simplex.
      projection: of the Euclidean mirror; see `extragradient`.
      hint: M_{t+1}: the "last_gradient", or a function of the tree of gradients.
      diameter: D, of the set.
      gradient_bound: G, a bound on the length of gradients.
      delta: any positive number.

    Returns:
      The optimizer; it needs `params`. Its state is one copy of them, two with the entropy or
      without a learning rate, three with both.

    Raises:
      ValueError: for a hyper-parameter out of range, what is no projection, or a projection with
        the entropy.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import optimistic_mirror_descent
      >>> opt = optimistic_mirror_descent(0.5, mirror="entropy")
      >>> params = jnp.array([0.5, 0.5])
      >>> updates, _ = opt.update(jnp.log(jnp.array([3.0, 1.0])), opt.init(params), params)
      >>> [round(float(p), 3) for p in params + updates]      # odds of 1 : 3, hint included
      [0.25, 0.75]

    References:
      Chen, Tu, Zhao & Zhang 2023, Optimistic Online Mirror Descent for Bridging Stochastic and
      Adversarial Online Convex Optimization (arXiv 2302.04552); Rakhlin & Sridharan 2013. There is
      no official code; the adaptive rate is that of the convex and smooth case.
    """
    check_projection("optimistic_mirror_descent", projection)
    if mirror == "entropy" and projection is not None:
        raise FlowError(
            "optimistic_mirror_descent: projection belongs to mirror='euclidean'; the entropy "
            "stays on the simplex by itself"
        )
    geometry: Any = _Entropy() if mirror == "entropy" else _Euclidean(projection)
    ahead = None if hint == "last_gradient" else hint

    def step(g: Signal, params: Signal) -> Signal:
        eta: Scalar
        next_eta: Scalar
        if learning_rate is None:
            eta, next_eta = _adaptive(g, diameter, gradient_bound, delta)
        else:
            eta, next_eta = scheduled(learning_rate), scheduled(learning_rate, ahead=1)
        shown = delay(params, name="base", evaluation=(1.0, 0.0))
        base = shown if mirror == "euclidean" else delay(params, geometry.start, name="log_base")
        x = base << geometry.move(base, eta * g)
        if shown is not base:
            shown << geometry.point(x)
        M = g if ahead is None else mapped_tree(ahead, "hint")(g)
        return geometry.point(geometry.move(x, next_eta * M)) - params

    return flow(step)


def _adaptive(
    g: Signal, diameter: Hyperparameter, bound: Hyperparameter, delta: Hyperparameter
) -> tuple[Signal, Signal]:
    """The rate of this step, and that of the next, by how much gradients vary."""
    past = delay(g, name="past_grads")
    variation = delay(0.0, name="variation")
    total = variation << hypot(variation, global_norm(g - past))
    past << g
    room = sqrt(scheduled(delta) + 4 * scheduled(bound) ** 2)
    D = scheduled(diameter)
    return D / hypot(room, variation), D / hypot(room, total)

"""FedHyper: learning rates that follow how successive changes agree."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    NonNegative,
    Period,
    Positive,
    PositiveConstant,
    Signal,
    clip,
    delay,
    flow,
    global_dot,
    minimum,
    saturate,
    scheduled,
    step_count,
    transformation,
    where,
)
from ...transforms import momentum as momentum_in_form
from ...transforms.notation.checks import checked
from .trees import wide, zeros

PAPER = (
    "Wang, Wang & Li 2024, FedHyper: A Universal and Robust Learning Rate Scheduler for Federated "
    "Learning with Hypergradient Descent"
)


@method(PAPER, arxiv="2310.03156", tags=("workers", "own-rate"), in_front=True, learning_rate=1e-3)
@transformation()
def fedhyper_global(
    momentum: Decay = 0.0, min_rate: Positive = 0.2, max_rate: Positive = 5.0
) -> Flow:
    r"""Scales the server's pseudo-gradient up while it agrees with the last ones.

    With g the mean over clients of start minus end, :math:`\alpha = 1` in the first round:

    .. math::
        \alpha &\leftarrow \operatorname{clip}(\alpha + \langle V, g \rangle, a, b) \\
        u &= \alpha g + \mu (\alpha - 1) V, \qquad V \leftarrow g + \mu V

    It stands in front of descent at rate 1: `averaging(sgd(0.01), chain(fedhyper_global(),
    sgd(1.0)), num_local_steps)`. The inner product has no rate of its own, so that alpha depends on
    the scale of the changes.

    Args:
      momentum: mu; FedHyper-GM, which is recommended, has 0.9, and min_rate 0.8.
      min_rate: a.
      max_rate: b.

    Returns:
      The transformation; its state is V and alpha.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fedhyper_global
      >>> tx, g = fedhyper_global(), jnp.array([1.0, 0.5])
      >>> _, state = tx.update(g, tx.init(g))
      >>> tx.update(g, state)[0].tolist()
      [2.25, 1.125]

    References:
      Wang, Wang & Li 2024 (arXiv 2310.03156), FedHyper-G and -GM as in ATP-1010/FedHyper; the
      paper has the bounds 1/3 and 3, and no momentum.
    """

    def step(g: Signal) -> Signal:
        g = saturate(g)
        past, rate = delay(g, name="momentum"), delay(1.0, name="rate")
        grown = clip(rate + global_dot(past, g), scheduled(min_rate), scheduled(max_rate))
        alpha = rate << where(step_count() == 1, 1.0, grown)
        u = alpha * g + scheduled(momentum) * (alpha - 1) * past
        past << g + scheduled(momentum) * past
        return u

    return flow(step)


@method(
    PAPER,
    arxiv="2310.03156",
    tags=("workers", "own-rate", "momentum"),
    learning_rate=0.05,
    required={"num_clients": 10, "steps_per_epoch": 4},
)
@transformation()
def fedhyper_client_local(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.5,
    *,
    num_clients: Positive,
    steps_per_epoch: Period,
    global_weight: NonNegative = 0.1,
) -> Flow:
    r"""A client's descent, faster while its steps agree with each other and with the server's.

    In one round, with b the heavy ball of the gradients, D the server's last change, and at first
    :math:`\beta = 1`, L = D:

    .. math::
        \delta &= -\eta \beta b, \qquad y \leftarrow y + \delta \\
        q &= \min(1 + \langle \delta, L \rangle + \tfrac w N \langle \delta, D \rangle, 1.1) \\
        \beta &\leftarrow \operatorname{clip}(\beta q, 0.1, 10), \qquad L \leftarrow \delta

    where the last line is left out at the first step of every epoch. Its state starts anew in every
    round.

    Args:
      learning_rate: eta; number or schedule.
      momentum: of the heavy ball, in [0, 1).
      num_clients: N.
      steps_per_epoch: steps of a local epoch.
      global_weight: w.

    Returns:
      The optimizer; its state is two buffers of the params' size and beta. Its update needs the
      extra argument `global_update`, how the server's params changed in the round before.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, without `global_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fedhyper_client_local
      >>> opt = fedhyper_client_local(0.5, 0.0, num_clients=1, steps_per_epoch=9, global_weight=0.0)
      >>> g = jnp.array([0.5])
      >>> state, moved = opt.init(g), []
      >>> for _ in range(3):
      ...     u, state = opt.update(g, state, g, global_update=-g)
      ...     moved.append(round(float(u[0]), 4))
      >>> moved
      [-0.25, -0.25, -0.275]

    References:
      Wang, Wang & Li 2024 (arXiv 2310.03156), FedHyper-CL as in ATP-1010/FedHyper; the paper's rate
      is additive, and takes gradients in place of steps.
    """

    def step(g: Signal, global_update: Signal) -> Signal:
        ball = g >> momentum_in_form(momentum, "heavy_ball")
        scale, past = delay(1.0, name="scale"), delay(g, name="last_step")
        s = step_count() - 1
        last = where(s == 0, global_update, past)
        moved = -scheduled(learning_rate) * scale * ball
        agreement = global_dot(moved, global_update) * scheduled(global_weight)
        q = minimum(1 + global_dot(moved, last) + agreement / scheduled(num_clients), 1.1)
        follows = s % steps_per_epoch != 0
        scale << where(follows, clip(scale * q, 0.1, 10.0), scale)
        past << where(follows, moved, last)
        return moved

    return flow(step)


class RateState(NamedTuple):
    """Sum of the inner products, the last change, and whether there was one."""

    total: jax.Array
    last: optax.Params
    started: jax.Array


class RateController(NamedTuple):
    """`init(params) -> state` and `update(mean_change, state) -> (rate, state)`, both pure."""

    init: Callable[[Any], RateState]
    update: Callable[[Any, RateState], tuple[Any, RateState]]


@method(
    PAPER,
    arxiv="2310.03156",
    tags=("workers", "own-rate"),
    kind="controller",
    learning_rate=None,
)
@checked()
def fedhyper_server_local(
    init_value: PositiveConstant = 0.01,
    min_value: PositiveConstant = 0.001,
    max_value: PositiveConstant = 0.1,
) -> RateController:
    r"""The clients' rate of the next round, higher while the server's changes agree.

    With :math:`D_r` the mean change of the params in round r:

    .. math::
        a \leftarrow a + \langle D_{r-1}, D_r \rangle, \qquad
        \eta = \operatorname{clip}(\eta_0 (1 + a), \eta_{\min}, \eta_{\max})

    a is 0 at first, and stays so in the first round; it is not clipped.

    Args:
      init_value: the rate of the first round.
      min_value: the lowest.
      max_value: the highest.

    Returns:
      The controller.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fedhyper_server_local
      >>> controller, change = fedhyper_server_local(), jnp.array([1.0])
      >>> _, state = controller.update(change, controller.init(change))
      >>> round(float(controller.update(change, state)[0]), 4)
      0.02

    References:
      Wang, Wang & Li 2024 (arXiv 2310.03156), FedHyper-SL. In ATP-1010/FedHyper the rates are
      overwritten at the start of the next round; here they hold.
    """

    def init(params: optax.Params) -> RateState:
        return RateState(jnp.zeros((), float), zeros(params), jnp.asarray(False))

    def update(mean_change: optax.Updates, state: RateState) -> tuple[jax.Array, RateState]:
        change = wide(mean_change)
        product = jnp.asarray(optax.tree.vdot(state.last, change), state.total.dtype)
        total = state.total + jnp.where(state.started, product, 0)
        rate = jnp.clip(init_value * (1 + total), min_value, max_value)
        return rate, RateState(total, change, jnp.asarray(True))

    return RateController(init, update)

"""Proximal steps on a cheaper proxy of the loss."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    Positive,
    Signal,
    Size,
    chain,
    flow,
    saturate,
    scale_by_learning_rate,
    scheduled,
    transformation,
    where,
)
from ...transforms.closures import (
    distance_term,
    gradient_at,
    gradient_here,
    linear_term,
    plus,
)
from ...transforms.control import iterated


@method(
    "Woodworth, Mishchenko & Bach 2023, Two Losses Are Better Than One: Faster Optimization Using "
    "a Cheaper Proxy",
    arxiv="2302.03542",
    tags=("closure", "several-losses"),
    learning_rate=0.1,
    small_model={"inner_steps": 3, "inner_learning_rate": 0.02},
)
@transformation()
def proxy_prox(
    learning_rate: optax.ScalarOrSchedule,
    inner_steps: Size = 10,
    inner_learning_rate: Positive = 0.1,
    inner: optax.GradientTransformation | None = None,
) -> Flow:
    r"""One gradient of the loss, and several steps on a cheaper proxy of it.

    .. math::
        \phi_t(y) &= h(y) + \langle g_t - \nabla h(x_t),\, y \rangle
        + \frac{1}{2 \eta} \|y - x_t\|^2 \\
        y_0 &= x_t, \qquad y_k = y_{k-1} - a \nabla \phi_t(y_{k-1}), \qquad x_{t+1} = y_K

    with g the incoming gradient, of the loss, and h the proxy. The linear term corrects the proxy
    by what its gradient is wrong by, so the first direction is g itself. Exactly minimised,
    :math:`x_{t+1} = x_t - \eta (g_t + \nabla h(x_{t+1}) - \nabla h(x_t))`. It costs K gradients of
    the proxy.

    Args:
      learning_rate: eta; number or schedule. It is of the order of 1 / delta, with delta the
        smoothness of the loss minus the proxy, not of the loss.
      inner_steps: K.
      inner_learning_rate: a, below 1 / (smoothness of the proxy + 1 / eta).
      inner: any optimizer of the inner steps, whose state starts anew at every step; default
        gradient descent at `inner_learning_rate`.

    Returns:
      The optimizer; it needs `params` and `proxy_fn`, params -> loss of the proxy. Of its own it
      keeps no state but the count of schedules.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, without `proxy_fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import proxy_prox
      >>> opt, x = proxy_prox(1.0, inner_steps=2, inner_learning_rate=0.25), jnp.array([1.0])
      >>> opt.update(2 * x, opt.init(x), x, proxy_fn=lambda y: jnp.sum(y**2) / 2)[0].tolist()
      [-0.75]

    References:
      Woodworth, Mishchenko & Bach 2023, Two Losses Are Better Than One: Faster Optimization Using a
      Cheaper Proxy (arXiv 2302.03542). There is no official code; where the paper asks for an
      accuracy of the inner minimisation, ours takes a number of steps.
    """
    descent = scale_by_learning_rate(inner_learning_rate) if inner is None else inner
    local = chain(gradient_here(), descent)

    def step(g: Signal, params: Signal, proxy_fn: Signal) -> Signal:
        wrong_by = saturate(g - gradient_at(params, proxy_fn))
        rate = scheduled(learning_rate)
        rests = rate == 0  # where a schedule ends: what pulls to the params is infinite
        shown = where(rests, 1.0, rate)
        moved = g >> iterated(inner_steps, local, wrong_by, shown, inputs=_corrected_proxy)
        return where(rests, 0.0, moved)

    return flow(step)


def _corrected_proxy(
    context: Any, wrong_by: Any, learning_rate: float | jax.Array
) -> Callable[[Any], Mapping[str, Any]]:
    """The closure of phi, the same at every inner step."""
    proxy_fn = context.extra["proxy_fn"]

    def phi(y: optax.Params) -> jax.Array:
        pull = distance_term(context, wrong_by, y)
        rate = jnp.asarray(learning_rate, pull.dtype)
        return plus(proxy_fn(y), linear_term(context, wrong_by, y) + pull / rate)

    return lambda _: {"value_fn": phi, "grad_fn": None}

"""Surrogates in the space of the outputs: several steps per gradient of the loss."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    AtLeastOne,
    Flow,
    FlowError,
    Fraction,
    Positive,
    PositiveConstant,
    Scalar,
    Signal,
    Size,
    chain,
    delay,
    flow,
    global_norm,
    scheduled,
    sqrt,
    step_count,
    transformation,
    where,
)
from ...transforms.closures import array_closure, gradient_here, scalar_closure
from ...transforms.control import iterated
from ...transforms.curvature import all_finite
from ...transforms.notation.needs import missing_input
from ...transforms.notation.roots import power_of_two_below, saturated
from ...transforms.step_size import backtracking

EtaSchedule = Literal["constant", "stochastic", "exponential"] | optax.Schedule
LEAST = 1e-6
"""Of the armijo search: the step below which it stops, and the norm of a gradient that is zero."""


@method(
    "Lavington et al. 2023, Target-based Surrogates for Stochastic Optimization",
    arxiv="2302.02607",
    tags=("closure", "own-rate"),
    learning_rate=None,
    required={"eta": 0.005},
    small_model={"inner_steps": 2},
)
@transformation()
def sso(
    eta: Positive,
    inner: Literal["armijo"] | optax.GradientTransformation = "armijo",
    inner_steps: Size = 10,
    eta_schedule: EtaSchedule = "constant",
    total_steps: Size | None = None,
    init_step: PositiveConstant = 10.0,
    armijo_c: Fraction = 0.5,
    backtrack: Fraction = 0.9,
    expand: AtLeastOne = 1.8,
) -> Flow:
    r"""Goes down a surrogate in the space of the outputs, with one gradient of the loss per step.

    .. math::
        G = \nabla \ell(z_t), \qquad
        S_t(\theta) = \operatorname{mean}\left( G\, z(\theta) / \eta_t + (z(\theta) - z_t)^2 \right)

    with z the outputs of the model on the batch, :math:`z_t` those at the params, and the mean over
    all entries; then `inner_steps` steps of an inner optimizer on S from the params. In the space
    of the outputs its minimum is at :math:`z_t - G / (2 \eta_t)`: a larger eta means a smaller
    step. The incoming gradients are not used: where the loss of the outputs is what is expensive,
    as a simulator is, G is all that is asked of it.

    Outputs move with G / eta, so where the gradient of the loss grows with them and eta is small
    the method itself diverges. The search of "armijo" compares S in units of the entries of G:
    squares of these need be no numbers. Params that the inner steps move beyond the numbers of the
    format rest at this step.

    Args:
      eta: the inverse of the step in the space of outputs, times 2; number or schedule.
      inner: "armijo", which is `armijo` below, or any optimizer; its state starts anew at each
        step.
      inner_steps: how many.
      eta_schedule: "constant"; "stochastic", eta sqrt(t); "exponential", eta T^(t / T), t from 1;
        or a function of the count, by whose value eta is multiplied.
      total_steps: T of "exponential".
      init_step, armijo_c, backtrack, expand: see `armijo`.

    Returns:
      The optimizer; it needs `params`, `outputs_fn`, from the params to the outputs of the batch,
      and `outputs_loss_fn`, from these to the mean loss. No state but the count.

    Raises:
      ValueError: for a hyper-parameter out of range, or "exponential" without `total_steps`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import sso
      >>> opt, x = sso(1.0, optax.sgd(0.5), inner_steps=1), jnp.array([1.0])
      >>> u, _ = opt.update(
      ...     x, opt.init(x), x, outputs_fn=lambda x: 2 * x, outputs_loss_fn=lambda z: jnp.sum(z))
      >>> u.tolist()
      [-1.0]

    References:
      Lavington, Vaswani, Babanezhad, Schmidt & Le Roux 2023, Target-based Surrogates for Stochastic
      Optimization (arXiv 2302.02607). The paper's surrogate is <G, z - z_t> + |z - z_t|^2 / (2 eta)
      with eta the step; we follow the authors' code, whose eta is the inverse, without the 1/2.
    """
    if eta_schedule == "exponential" and total_steps is None:
        raise FlowError("sso: eta_schedule='exponential' needs total_steps")
    search = armijo(init_step, armijo_c, backtrack, expand)
    local = chain(gradient_here(), search if isinstance(inner, str) else inner)

    def step(g: Signal, params: Signal, outputs_fn: Signal, outputs_loss_fn: Signal) -> Signal:
        moved = g >> iterated(
            inner_steps,
            local,
            inverse_step(),
            inputs=functools.partial(_surrogate, in_units=isinstance(inner, str)),
            needs=("outputs_fn", "outputs_loss_fn"),
        )
        return where(all_finite(moved), moved, 0.0)

    def inverse_step() -> Scalar:
        t = step_count()
        if eta_schedule == "constant":
            return scheduled(eta)
        if eta_schedule == "stochastic":
            return scheduled(eta) * sqrt(t)
        if eta_schedule == "exponential":
            assert total_steps is not None
            return scheduled(eta) * (1.0 * total_steps) ** (t / total_steps)
        return scheduled(eta) * scheduled(eta_schedule)

    return flow(step)


def _surrogate(
    context: Any, eta: float | jax.Array, *, in_units: bool
) -> Callable[[Any], Mapping[str, Any]]:
    """The closures of S, the same at every inner step.

    Args:
      context: the running context.
      eta: the inverse of the step in the space of outputs.
      in_units: the value is S divided by the square of a power of two near the entries of G, so
        that no square of them is taken; the gradient is that of S.
    """
    for name in ("outputs_fn", "outputs_loss_fn"):
        if context.extra.get(name) is None:
            raise FlowError(missing_input(context.label, name))
    outputs_fn, loss_fn = context.extra["outputs_fn"], context.extra["outputs_loss_fn"]
    at = context.whole.tree()
    array_closure(outputs_fn, at, context.label, "outputs_fn")
    z_t = outputs_fn(at)
    scalar_closure(loss_fn, z_t, context.label, "outputs_loss_fn")
    G = saturated(jax.grad(loss_fn)(z_t))
    unit = power_of_two_below(jnp.max(jnp.abs(G), initial=0))
    slope = G / unit / jnp.asarray(eta, G.dtype)

    def surrogate(params: optax.Params) -> jax.Array:
        # from z_t on: beside G z_t, which changes nothing, small moves are lost in rounding
        y = (outputs_fn(params) - z_t) / unit
        value = jnp.mean((slope + y) * y)
        return value if in_units else unit * (unit * value)

    def gradient(params: optax.Params) -> optax.Updates:
        z, pull = jax.vjp(outputs_fn, params)
        y = (z - z_t) / unit
        (found,) = pull(unit * ((slope + 2 * y) / max(y.size, 1)))
        return jax.tree.map(jnp.conj, found)

    return lambda _: {"value_fn": surrogate, "grad_fn": gradient}


@transformation()
def armijo(
    init_step: PositiveConstant = 10.0,
    armijo_c: Fraction = 0.5,
    backtrack: Fraction = 0.9,
    expand: AtLeastOne = 1.8,
) -> Flow:
    """Gradient descent whose step is searched for, from a little above the last one.

        s <- expand s;   while f(x - s g) > f(x) - armijo_c s |g|^2:  s <- backtrack s
        x <- x - s g

    with at most 100 tries, and none below a step of 1e-6; the last one is taken whatever the loss
    there. After a gradient of norm at most 1e-6 it rests.

    Args:
      init_step: s before the first step.
      armijo_c: the share of the linear decrease that is asked for.
      backtrack: by which a step that is too long is multiplied.
      expand: by which the last step is multiplied before a search.

    Returns:
      The optimizer; it needs `params` and `value_fn`, and its state is two numbers.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import armijo
      >>> opt, x = armijo(init_step=4.0, backtrack=0.5, expand=1.0), jnp.array([3.0])
      >>> opt.update(x, opt.init(x), x, value_fn=lambda x: jnp.sum(x**2) / 2)[0].tolist()
      [-3.0]

    References:
      Armijo 1966, Minimization of functions having Lipschitz continuous first partial derivatives;
      the numbers are those of the code of Lavington et al. 2023 (arXiv 2302.02607).
    """

    def step(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        last = delay(1.0 * init_step, name="step_size")
        resting = delay(False, name="resting")
        s = last << backtracking(
            value_fn,
            params,
            -g,
            scheduled(expand) * last,
            decrease_factor=backtrack,
            sufficient_decrease=armijo_c,
            max_steps=100,
            min_step=LEAST,
        )
        resting << (resting | (global_norm(g) <= LEAST))
        return where(resting, 0.0, -s * g)

    return flow(step)

"""TENG: a network follows a differential equation by natural gradients in its outputs."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from ....registry import method
from ....transforms import FlowError, NonNegativeConstant, PositiveConstant, Size, checked
from ....transforms.notation import linalg
from ....transforms.notation.known import repeat

Function = Callable[[Any, jax.Array], jax.Array]
"""`(params, point) -> value at the point`, a number or an array."""

Operator = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""`(u, point) -> time derivative at the point`, with u a function of the point."""

Integrator = Literal["euler", "heun", "rk4"]

NODES: dict[str, tuple[float, ...]] = {"euler": (), "heun": (1.0,), "rk4": (0.5, 0.5, 1.0)}
"""Of a scheme, how far each further stage goes along the slope of the stage before."""

WEIGHTS: dict[str, tuple[float, ...]] = {
    "euler": (1.0,),
    "heun": (1 / 2, 1 / 2),
    "rk4": (1 / 6, 1 / 3, 1 / 3, 1 / 6),
}
"""Of the slopes, in the step."""


class TengState(NamedTuple):
    """What `teng` keeps.

    Attributes:
      params: of the network that is the solution now.
      time: since the start.
      residual: of the last fit, the root of its mean square.
    """

    params: Any
    time: Any
    residual: Any


class TengStepper(NamedTuple):
    """A solution that goes forward in time: two pure functions that may be jitted.

    Attributes:
      init: `params -> state`, with params at which the network is the initial condition.
      step: `(state, points) -> state`.
    """

    init: Callable[[Any], TengState]
    step: Callable[[TengState, Any], TengState]


@checked()
def teng_step(
    u_fn: Function,
    params: optax.Params,
    target_u: jax.Array,
    x: jax.Array,
    inner_iters: Size = 7,
    rcond: NonNegativeConstant | None = None,
) -> Any:
    r"""Params at which a function has given values: natural-gradient steps in output space.

    .. math::
        \theta \leftarrow \theta + J^+ (u_{target} - u_\theta(x)), \qquad
        J = \partial u_\theta(x) / \partial \theta

    `inner_iters` times, with the least squares truncated. It is the Gauss-Newton step of unit
    length on the distance of the two functions, and has no line search: the target must be near.

    Args:
      u_fn: (params, point) -> value there.
      params: where to start.
      target_u: values at the points, on a leading axis.
      x: points, on a leading axis.
      inner_iters: how many steps.
      rcond: singular values of J below this share of the largest count as 0; default 1e-6, or the
        root of the machine epsilon of the params where that is more. Smaller ones fit better and
        may diverge.

    Returns:
      The new params. Work in float64.

    Raises:
      ValueError: for a hyper-parameter out of range, or a target of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import teng_step
      >>> x = jnp.array([0.0, 1.0])
      >>> u_fn = lambda p, x: p["a"] + jnp.exp(p["b"]) * x
      >>> p = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
      >>> p = teng_step(u_fn, p, jnp.array([1.0, 3.0]), x)
      >>> [round(float(u_fn(p, at)), 4) for at in x]
      [1.0, 3.0]

    References:
      Chen et al. 2024; see `teng`.
    """
    _check(u_fn, params, target_u, x)
    flat, unravel = ravel_pytree(params)
    least = max(1e-6, float(jnp.finfo(flat.dtype).eps) ** 0.5) if rcond is None else rcond

    def outputs(vector: jax.Array) -> jax.Array:
        found = jax.vmap(lambda point: u_fn(unravel(vector), point))(x)
        return found.ravel().astype(flat.dtype)

    target = jnp.asarray(target_u, flat.dtype).ravel()

    def solve(_: int | jax.Array, vector: jax.Array) -> jax.Array:
        # a pass for each output, or for each param: the fewer
        jacobian = jax.jacrev if target.size < flat.size else jax.jacfwd
        return vector + _least_squares(
            jacobian(outputs)(vector), target - outputs(vector), jnp.asarray(least, flat.dtype)
        )

    return unravel(repeat(inner_iters, solve, flat))


def _least_squares(matrix: jax.Array, right: jax.Array, rcond: jax.Array) -> jax.Array:
    """The shortest solution in the space of the singular values above that share of the largest."""
    left, sizes, rows = linalg.svd(matrix)
    kept = sizes > rcond * sizes[0]
    along = jnp.matmul(right, left, precision="highest")
    scaled = jnp.where(kept, along / jnp.where(kept, sizes, 1), 0)
    return jnp.matmul(scaled, rows, precision="highest")


@method(
    "Chen et al. 2024, TENG: Time-Evolving Natural Gradient for Solving PDEs With Deep Neural Nets "
    "Toward Machine Precision",
    arxiv="2404.10771",
    tags=("curvature",),
    kind="stepper",
    required={
        "u_fn": lambda params, x: params * x,
        "operator": lambda u, x: u(x),
        "time_step": 0.01,
    },
)
@checked()
def teng(
    u_fn: Function,
    operator: Operator,
    time_step: PositiveConstant,
    integrator: Integrator = "heun",
    inner_iters: Size = 7,
    rcond: NonNegativeConstant | None = None,
) -> TengStepper:
    r"""Solves du/dt = N(u) with a network for u, whose params are fitted anew at every time.

    For Heun's scheme, with :math:`\mathrm{fit}` the natural-gradient steps of `teng_step`,

    .. math::
        k_1 &= N(u_\theta), \qquad
        \theta' = \mathrm{fit}(\theta;\ u_\theta + \Delta t\, k_1) \\
        k_2 &= N(u_{\theta'}), \qquad
        \theta \leftarrow \mathrm{fit}(\theta';\ u_\theta + \tfrac{\Delta t}{2} (k_1 + k_2))

    "euler" makes one fit, to :math:`u_\theta + \Delta t\, k_1`, and "rk4" one at each stage of the
    classical scheme of order four. Every fit starts at the params of the one before.

    Args:
      u_fn: (params, point) -> value there, a number or an array.
      operator: N; `(u, point) -> time derivative`, with u a function of the point that may be
        differentiated: `lambda u, x: nu * jax.grad(jax.grad(u))(x)` is the heat equation.
      time_step: Delta t.
      integrator: "euler", "heun" or "rk4".
      inner_iters, rcond: of each fit, see `teng_step`.

    Returns:
      A `TengStepper`: `init(params)`, `step(state, points)`, with the params, the time and the
      residual of the last fit in the state. Boundary conditions are the network's own business,
      such as features that are periodic.

    Raises:
      ValueError: for a hyper-parameter out of range, or an operator whose values have another shape
        than those of `u_fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import teng
      >>> u_fn = lambda p, x: p * jnp.sin(x)
      >>> heat = lambda u, x: jax.grad(jax.grad(u))(x)
      >>> stepper = teng(u_fn, heat, 0.1)
      >>> import jax
      >>> state = stepper.step(stepper.init(jnp.array(1.0)), jnp.linspace(0.0, 3.0, 5))
      >>> round(float(state.params), 4)          # 1 - 0.1 + 0.1^2 / 2, of exp(-0.1) = 0.9048
      0.905

    References:
      Chen, McCarran, Vizcaino, Soljacic & Luo 2024, TENG (arXiv 2404.10771), and the authors' code.
      Chosen here: each fit makes `inner_iters` steps, where the code makes 7 in the first stage and
      5 in later ones; all params move at every step, where the code solves for a random part of
      them, 1536 at a fit's first step and 1024 later; and the singular values are cut at 1e-6 of
      the largest, where the code cuts at the epsilon times the larger side of J, which with all
      params diverges.
    """

    def init(params: optax.Params) -> TengState:
        dtype = ravel_pytree(params)[0].dtype
        owned = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return TengState(owned, jnp.zeros((), dtype), jnp.zeros((), dtype))

    def step(state: TengState, points: jax.Array) -> TengState:
        def values(params: jax.Array) -> jax.Array:
            return jax.vmap(lambda x: u_fn(params, x))(points)

        def slopes(params: jax.Array) -> jax.Array:
            found = jax.vmap(lambda x: operator(lambda at: u_fn(params, at), x))(points)
            if found.shape != start.shape:
                raise FlowError(
                    f"teng: operator must give values like u_fn, of shape {start.shape[1:]} at a "
                    f"point, not {found.shape[1:]}"
                )
            return found

        def fitted(params: jax.Array, target: jax.Array) -> jax.Array:
            return teng_step(u_fn, params, target, points, inner_iters, rcond)

        start, params = values(state.params), state.params
        dt = jnp.asarray(time_step, start.dtype)
        found = [slopes(params)]
        for node in NODES[integrator]:
            params = fitted(params, start + dt * node * found[-1])
            found.append(slopes(params))
        weighted = zip(WEIGHTS[integrator], found, strict=True)
        target = start + dt * sum(weight * slope for weight, slope in weighted)
        params = fitted(params, target)
        residual = jnp.sqrt(jnp.mean((values(params) - target) ** 2)).astype(state.time.dtype)
        return TengState(params, state.time + dt.astype(state.time.dtype), residual)

    return TengStepper(init, step)


def _check(u_fn: Any, params: optax.Params, target_u: jax.Array, x: jax.Array) -> None:
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise FlowError(
                f"teng_step: params must be real arrays, one is {jnp.result_type(leaf)}"
            )
    found = jax.eval_shape(lambda p, at: jax.vmap(lambda x: u_fn(p, x))(at), params, x)
    if found.shape != np.shape(target_u):
        raise FlowError(
            f"teng_step: target_u must have the shape {found.shape} of u_fn at the points, not "
            f"{np.shape(target_u)}"
        )

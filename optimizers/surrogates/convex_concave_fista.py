"""Momentum with an implicit step in the convex part of the loss, an explicit one in the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    NonNegativeConstant,
    Positive,
    PositiveConstant,
    Signal,
    checked,
    delay,
    flow,
    lift_tree,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.notation import linalg
from ...transforms.notation.values import Leaves

Prox = Callable[[Any, Any], optax.Params]
"""`(tree, step) -> tree`."""


@method(
    "Akande et al. 2025, Momentum-based minimization of the Ginzburg-Landau functional on "
    "Euclidean spaces and graphs",
    tags=("momentum", "nesterov", "evaluation-weights"),
    learning_rate=None,
    required={"step_size": 0.05, "prox": lambda tree, step: tree},
)
@transformation()
def convex_concave_fista(step_size: Positive, prox: Prox, momentum: Decay | None = None) -> Flow:
    r"""FISTA for a convex part that is easy to solve with, and a concave one.

    .. math::
        x_t = \mathrm{prox}_{h F_{cvx}}(y_{t-1} - h \nabla F_{ccv}(y_{t-1})), \qquad
        y_t = x_t + \rho_t (x_t - x_{t-1})

    with :math:`x_0 = y_0` the first params. The params of the loop are the extrapolated points y,
    and the incoming gradients those of the concave part there. `eval_params(state, params)` gives
    x. Nothing may follow it in a chain.

    Args:
      step_size: h; number or schedule. It is the square of the time step of the discretised
        equation of motion.
      prox: `(tree, h) -> x` with x + h grad F_cvx(x) = tree, such as `ginzburg_landau_prox`.
      momentum: rho; number or schedule. None: (t - 1) / (t + 2).

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them and, without `momentum` or
      with schedules, the count.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import convex_concave_fista
      >>> prox = lambda v, h: v / (1 + h)                     # of |x|^2 / 2
      >>> opt, y = convex_concave_fista(1.0, prox, momentum=0.5), jnp.array([4.0])
      >>> opt.update(jnp.array([0.0]), opt.init(y), y)[0].tolist()     # x = 2, y = 2 - 1
      [-3.0]

    References:
      Akande, Dondl, Gupta, Onwunta & Wojtowytsch 2025, Momentum-based minimization of the
      Ginzburg-Landau functional on Euclidean spaces and graphs. No code was found; in the paper the
      momentum comes from a friction coefficient and the time step, ours is given directly.
    """

    def step(g: Signal, params: Signal) -> Signal:
        h = scheduled(step_size)
        before = delay(params, name="iterate", evaluation=(1.0, 0.0))
        x = _proximal(params - h * g, h, prox=prox)
        t = step_count()
        rho = (t - 1) / (t + 2) if momentum is None else scheduled(momentum)
        ahead = x + rho * (x - before)
        before << x
        return ahead - params

    return flow(step)


def _solved(tree: Leaves, step: float | jax.Array, prox: Prox) -> Leaves:
    found = Leaves.up_to(tree.treedef, prox(tree.tree(), step))
    return tree.map(lambda old, new: jnp.asarray(new, old.dtype), found)


_proximal = lift_tree(_solved, "prox", out=0)


@checked()
def ginzburg_landau_prox(
    laplacian: ArrayLike | tuple[ArrayLike, ArrayLike],
    eps: PositiveConstant,
    stabilizer: NonNegativeConstant,
) -> Prox:
    r"""The implicit step of the convex part of the Ginzburg-Landau energy.

    .. math::
        F(u) = \tfrac{\epsilon}{2} \langle u, L u \rangle
        + \tfrac{1}{\epsilon} \sum W(u), \qquad W(u) = (u^2 - 1)^2 / 4

    is split with a stabiliser s into the convex
    :math:`\frac{\epsilon}{2} \langle u, L u \rangle + \frac{s}{2 \epsilon} |u|^2` and the rest,
    which is concave on [-1, 1] for s >= 2. The step is
    :math:`(I + h (\epsilon L + \frac{s}{\epsilon} I))^{-1} v`.

    Args:
      laplacian: L, symmetric (n, n), or its eigenvalues (n,) and eigenvectors (n, n) in columns, by
        which a step costs two products instead of a system.
      eps: width of the interface.
      stabilizer: s.

    Returns:
      `prox(tree, h)`; the first axis of each leaf are the n nodes.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import ginzburg_landau_prox
      >>> prox = ginzburg_landau_prox(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), 1.0, 2.0)
      >>> prox(jnp.array([1.0, 1.0]), 0.5).tolist()
      [0.5, 0.5]

    References:
      Akande et al. 2025; the splitting is that of Eyre 1998, Unconditionally gradient stable time
      marching the Cahn-Hilliard equation.
    """

    def of_leaf(v: jax.Array, h: jax.Array) -> jax.Array:
        def shift(values: jax.Array) -> jax.Array:
            return 1 + h * (eps * values + stabilizer / eps)

        if isinstance(laplacian, tuple):
            values, vectors = (jnp.asarray(x, v.dtype) for x in laplacian)
            inside = jnp.tensordot(vectors.T, v, axes=1, precision="highest")
            scale = shift(values).reshape(-1, *(1,) * (v.ndim - 1))
            return jnp.tensordot(vectors, inside / scale, axes=1, precision="highest")
        matrix = jnp.asarray(laplacian, v.dtype)
        system = jnp.eye(len(matrix), dtype=v.dtype) + h * (
            eps * matrix + stabilizer / eps * jnp.eye(len(matrix), dtype=v.dtype)
        )
        return linalg.solve(system, v.reshape(len(matrix), -1)).reshape(v.shape)

    def prox(tree: optax.Params, step: float | jax.Array) -> optax.Params:
        return jax.tree.map(lambda v: of_leaf(v, jnp.asarray(step, v.dtype)), tree)

    return prox

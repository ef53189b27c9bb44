"""Lazy cubic Newton."""

import optax

from ....registry import method
from ....transforms import (
    Flow,
    Mask,
    Period,
    Positive,
    Signal,
    Size,
    chain,
    flatten_tree,
    flow,
    handed_on,
    named,
    on_leaves,
    scale_by_learning_rate,
    scheduled,
    tap,
    transformation,
    unflatten_tree,
    where,
)
from ....transforms.curvature import all_finite, hessian_spectrum
from .cubic import cubic_subproblem


@transformation()
def scale_by_lazy_cubic_newton(
    m: Positive = 1.0, update_interval: Period | None = None, solver_iterations: Size = 50
) -> Flow:
    """A cubic-regularised Newton direction whose Hessian is taken at every k-th step only.

        u_t = -argmin over h of  <g_t, h> + <H h, h> / 2 + (m / 6) |h|^3

    H is the full Hessian at the params of the steps 1, k + 1, ..., the gradient is fresh. The
    global minimiser leaves strict saddles even where the gradient vanishes. The spectrum of H is
    kept (d^2 + d numbers): for small models. A step with a Hessian or a direction that is not
    finite is left out (taps `curvature_is_finite`, `direction_is_finite`).

    Args:
      m: cubic regularisation, positive; number or schedule; theory: 6 k times the Lipschitz
        constant of the Hessian.
      update_interval: k; default d, the number of parameters.
      solver_iterations: of the search for |h|; it converges quadratically.

    References:
      Doikov, Chayti & Jaggi 2023, Second-order optimization with lazy Hessians (arXiv 2212.00781).
      We rest on the paper: no official code was found. Its adaptive choice of m needs rejected
      steps and is left out; give a schedule.
    """

    def step(g: Signal) -> Signal:
        hessian = g >> named("hessian", hessian_spectrum(update_interval))
        h = cubic_subproblem(hessian, scheduled(m), flatten_tree(g), solver_iterations)
        is_usable = tap("direction_is_finite", all_finite(h))
        return -unflatten_tree(where(is_usable, h, 0.0), g)

    return flow(step)


@method(
    "Doikov, Chayti & Jaggi 2023, Second-order optimization with lazy Hessians",
    arxiv="2212.00781",
    tags=("curvature", "closure"),
    learning_rate=1.0,
    small_model={"m": 10.0, "update_interval": 5},
)
@transformation(synonyms={"mask": "trainable"})
def lazy_cubic_newton(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    m: Positive = 1.0,
    update_interval: Period | None = None,
    solver_iterations: Size = 50,
    trainable: Mask | None = None,
) -> Flow:
    """Cubic Newton with lazy Hessians; the rule is that of `scale_by_lazy_cubic_newton`.

    Needs `value_fn`, the loss of the batch.

    Args:
      learning_rate: 1 in the paper; number or schedule.
      m, update_interval, solver_iterations: see `scale_by_lazy_cubic_newton`.
      trainable: leaves that are trained, and enter the Hessian; the others are not moved. Default
        all.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import lazy_cubic_newton
      >>> loss = lambda x: jnp.sum(x**2) / 2
      >>> params, opt = jnp.array([2.0, 0.0]), lazy_cubic_newton(m=2.0)
      >>> u, _ = opt.update(jax.grad(loss)(params), opt.init(params), params, value_fn=loss)
      >>> u.round(4).tolist()
      [-1.0, 0.0]
    """
    direction = handed_on(scale_by_lazy_cubic_newton)
    return on_leaves(trainable, chain(direction, scale_by_learning_rate(learning_rate)))

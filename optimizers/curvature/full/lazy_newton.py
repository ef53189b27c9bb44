"""Lazy Newton."""

from typing import Literal

import optax

from ....registry import method
from ....transforms import (
    Flow,
    Mask,
    NonNegative,
    Period,
    Signal,
    chain,
    flatten_tree,
    flow,
    handed_on,
    leaf_norm,
    named,
    on_leaves,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    tap,
    transformation,
    unflatten_tree,
    where,
)
from ....transforms.curvature import all_finite, hessian_spectrum, shifted_solve

Regularization = Literal["gradient", "constant"]


@transformation()
def scale_by_lazy_newton(
    m: NonNegative = 1.0,
    update_interval: Period | None = None,
    regularization: Regularization = "gradient",
    damping: NonNegative = 0.0,
) -> Flow:
    """A regularised Newton direction whose Hessian is taken at every k-th step only.

        u_t = (H + lam_t I)^{-1} g_t
        lam_t = sqrt(m |g_t|)  ("gradient")   or   damping  ("constant")

    H is the full Hessian at the params of the steps 1, k + 1, ..., the gradient is fresh. All
    leaves form one vector of d entries; the spectrum of H is kept (d^2 + d numbers), so a step in
    between costs O(d^2). For small models, or few parameters of a large one (`trainable`).

    Directions in which H + lam I vanishes up to rounding are left out. An indefinite H may give a
    direction towards a saddle: `lazy_cubic_newton` does not. float64 is recommended. A
    step with a Hessian or a direction that is not finite is left out (taps `curvature_is_finite`,
    `direction_is_finite`).

    Args:
      m: regularisation; theory: 3 k times the Lipschitz constant of the Hessian.
      update_interval: k; default d, the frequency that theory prefers.
      regularization: see above; "gradient" is for convex losses.
      damping: constant shift.

    References:
      Doikov, Chayti & Jaggi 2023, Second-order optimization with lazy Hessians (arXiv 2212.00781).
      We rest on the paper: no official code was found.
    """

    def step(g: Signal) -> Signal:
        flat = flatten_tree(g)
        hessian = g >> named("hessian", hessian_spectrum(update_interval))
        is_constant = regularization == "constant"
        shift = scheduled(damping) if is_constant else sqrt(scheduled(m) * leaf_norm(flat))
        u = shifted_solve(hessian, shift, flat)
        is_usable = tap("direction_is_finite", all_finite(u))
        return unflatten_tree(where(is_usable, u, 0.0), g)

    return flow(step)


@method(
    "Doikov, Chayti & Jaggi 2023, Second-order optimization with lazy Hessians",
    arxiv="2212.00781",
    tags=("curvature", "closure"),
    learning_rate=1.0,
    small_model={"m": 10.0, "update_interval": 5},
)
@transformation(synonyms={"mask": "trainable"})
def lazy_newton(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    m: NonNegative = 1.0,
    update_interval: Period | None = None,
    regularization: Regularization = "gradient",
    damping: NonNegative = 0.0,
    trainable: Mask | None = None,
) -> Flow:
    """Newton's method with lazy Hessians; the rule is that of `scale_by_lazy_newton`.

    Needs `value_fn`, the loss of the batch.

    Args:
      learning_rate: 1 in the paper; number or schedule.
      m, update_interval, regularization, damping: see `scale_by_lazy_newton`.
      trainable: leaves that are trained, and enter the Hessian; the others are not moved. Default
        all.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import lazy_newton
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 10.0]) * x**2) / 2
      >>> params, opt = jnp.array([1.0, 1.0]), lazy_newton(m=0.0)
      >>> u, _ = opt.update(jax.grad(loss)(params), opt.init(params), params, value_fn=loss)
      >>> u.round(4).tolist()
      [-1.0, -1.0]
    """
    direction = handed_on(scale_by_lazy_newton)
    return on_leaves(trainable, chain(direction, scale_by_learning_rate(learning_rate)))

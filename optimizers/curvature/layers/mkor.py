"""MKOR."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax

from ....registry import method
from ....transforms import (
    Constant,
    Decay,
    DType,
    Flow,
    FlowError,
    Fraction,
    Hyperparameter,
    Interval,
    Length,
    NonNegative,
    Period,
    Positive,
    Signal,
    chain,
    decay_weights,
    delay,
    divide_or_zero,
    flow,
    handed_on,
    pair,
    scale_by_learning_rate,
    scheduled,
    step_count,
    tap,
    trace,
    transformation,
    when,
    where,
)
from ....transforms.curvature import all_finite
from ....transforms.kronecker import (
    Layers,
    across_devices,
    blend_identity,
    finite_or,
    finite_or_plain,
    identity_like,
    join_layers,
    layer_matrices,
    layer_means,
    layer_norms,
    rank_one_inverse,
)
from ....transforms.notation import lift_elementwise
from ....transforms.notation.roots import maximum_over

Variant = Literal["official", "paper", "sherman_morrison"]

outer = lift_elementwise(lambda u: u[..., :, None] * u[..., None, :], "outer")
largest = lift_elementwise(lambda m: maximum_over(jnp.abs(m), (-2, -1), True), "largest")
identity = lift_elementwise(identity_like, "identity")


Bound = Annotated[Constant, Interval(0.0, math.inf, low_open=True)]
"""A bound of entries."""


@transformation()
def scale_by_mkor(
    update_interval: Period = 10,
    warmup_steps: Length = 0,
    clip_value: Bound = 100.0,
    variant: Variant = "official",
    gamma: Decay = 0.9,
    stabilization_factor: Fraction = 0.9,
    stabilization_threshold: Positive = 2.0,
    first_order_layers: Sequence[str] = (),
    layers: Layers = None,
    axis_name: str | None = None,
) -> Flow:
    r"""The gradient of every layer between two inverses, which rank-1 updates keep up to date.

    With A the layer's inputs (ones appended for a bias), D the cotangents of the mean loss and
    G = [dW; db], at the steps t with (t - 1) mod `update_interval` = 0 or t <= `warmup_steps`,

        a = mean over the examples of clip(A),    d = mean of clip(N D)

    update J_A (with u = a) and J_G (with u = d), both I at first:

        official          C = 0.95 J + 0.05 I,  J <- C - (C u)(C u)^T / (1 + u^T C u); a side that
                          is new or marked becomes I instead; max |J| > 2 marks both sides of the
                          layer, J_A before J_G of the same step
        paper             J <- J + (1 - gamma) / (gamma^2 (1 + gamma (1 - gamma) u^T J u))
                          (J u)(J u)^T, after J <- gamma J
        sherman_morrison  J <- the inverse of gamma J^{-1} + (1 - gamma) u u^T

    the latter two after J <- zeta J + (1 - zeta) I where max |J| > `stabilization_threshold`. Then
    X = J_A G J_G, rescaled to the norms of G: times (|dW| + |db|) / (|X_W| + |X_b|).

    Other leaves pass unchanged. A layer whose X is not finite, or zero, takes G instead; the tap
    `fallbacks` counts the former. Updates of J that are not finite are left out; the tap
    `statistics_are_finite` is then false.

    Args:
      update_interval: see above.
      warmup_steps: the inverses are updated at each of the first steps.
      clip_value: bound of the entries of A and N D.
      variant: "official", "paper" or "sherman_morrison".
      gamma: decay of the second moments in the last two, in (0, 1).
      stabilization_factor: zeta.
      stabilization_threshold: where the stabiliser of the last two sets in.
      first_order_layers: names of layers ("block/dense") that take the plain gradient.
      layers: see `scale_by_k_fac`.
      axis_name: mesh axis over which a and d are averaged, under `jax.shard_map`.

    Extra inputs:
      layer_inputs, layer_cotangents: see `scale_by_k_fac`.

    References:
      Mozaffari et al. 2023, MKOR: Momentum-Enabled Kronecker-Factor-Based Optimizer Using Rank-1
      Updates. The official code (Mohammad-Mozaffari/mkor) has no weight 1 - gamma, shrinks the
      inverse by the fixed 0.95, and its stabiliser is in effect a reset; the paper's formula adds
      the rank-1 term, and is not the inverse of a running second moment. For convolutions the
      means are over positions and examples, as in the official code.
    """
    first_order = tuple(first_order_layers)

    def refresh(g: Signal, layer_inputs: Signal, layer_cotangents: Signal) -> Signal:
        means = layer_means(g, layer_inputs, layer_cotangents, layers, clip_value, first_order)
        u = pair(*(across_devices(mean, axis_name) for mean in means))
        J = delay(outer(u), identity_like, name="inverses")
        if variant == "official":
            new = _reset_rule(J, u)
        else:
            rule = {"paper": _paper_rule, "sherman_morrison": _exact_rule}[variant]
            zeta = scheduled(stabilization_factor)
            new = rule(_stabilised(J, stabilization_threshold, zeta), u, scheduled(gamma))
        tap("statistics_are_finite", all_finite(new))
        return J << finite_or(new, J)

    def step(g: Signal, layer_inputs: Signal, layer_cotangents: Signal) -> Signal:
        G = layer_matrices(g, layer_inputs, layers, first_order)
        t = step_count()
        due = ((t - 1) % update_interval == 0) | (t <= warmup_steps)
        J = g >> when(due, flow(refresh), name="inverses")
        X = J[0] @ G @ J[1]
        size = layer_norms(X, g, layers)
        scale = divide_or_zero(layer_norms(G, g, layers), size)
        X = where(size == 0, G, X * scale)
        return join_layers(finite_or_plain(X, G), g, layers)

    return flow(step)


def _reset_rule(J: Signal, u: Signal) -> Signal:
    marked = delay(largest(J) > 0, True, name="reset")
    shrunk = rank_one_inverse(blend_identity(J, 0.95), u)
    new_a = where(marked[0], identity(J[0]), shrunk[0])
    over_a = largest(new_a) > 2
    new_d = where(marked[1] | over_a, identity(J[1]), shrunk[1])
    over_d = largest(new_d) > 2
    marked << pair(over_a | over_d, over_d)
    return pair(new_a, new_d)


def _stabilised(J: Signal, threshold: Hyperparameter, zeta: Hyperparameter) -> Signal:
    return where(largest(J) > threshold, blend_identity(J, zeta), J)


def _paper_rule(J: Signal, u: Signal, gamma: Hyperparameter) -> Signal:
    def added(J: jax.Array, u: jax.Array, gamma: float | jax.Array) -> jax.Array:
        moved = J @ u[..., None]
        weight = gamma**2 * (1 + gamma * (1 - gamma) * (u[..., None, :] @ moved))
        return gamma * J + (1 - gamma) / weight * moved * jnp.swapaxes(moved, -1, -2)

    return lift_elementwise(added, "rank_one_addition")(J, u, gamma)


def _exact_rule(J: Signal, u: Signal, gamma: Hyperparameter) -> Signal:
    return rank_one_inverse(J, u, old=gamma, new=1 - scheduled(gamma))


@method(
    "Mozaffari, Li, Zhang & Mehri Dehnavi 2023, MKOR: Momentum-Enabled Kronecker-Factor-Based "
    "Optimizer Using Rank-1 Updates",
    arxiv="2306.01685",
    tags=("curvature", "kronecker", "matrix", "layerwise"),
    learning_rate=0.02,
)
@transformation()
def mkor(
    learning_rate: optax.ScalarOrSchedule | None,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    update_interval: Period = 10,
    warmup_steps: Length = 0,
    clip_value: Bound = 100.0,
    variant: Variant = "official",
    gamma: Decay = 0.9,
    stabilization_factor: Fraction = 0.9,
    stabilization_threshold: Positive = 2.0,
    first_order_layers: Sequence[str] = (),
    backend: optax.GradientTransformation | None = None,
    layers: Layers = None,
    axis_name: str | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """MKOR: `scale_by_mkor`, then heavy-ball SGD or another first-order method.

        u = X + weight_decay theta,    buf <- momentum buf + u,    theta <- theta - lr buf

    Args:
      learning_rate: lr, a number or a schedule; None where the backend has its own.
      momentum: heavy ball, undamped.
      weight_decay: coupled.
      update_interval: see `scale_by_mkor`.
      warmup_steps: likewise.
      clip_value: likewise.
      variant: likewise.
      gamma: likewise.
      stabilization_factor: likewise.
      stabilization_threshold: likewise.
      first_order_layers: likewise.
      backend: a transformation, such as `optax.lamb(1e-3)`, in place of SGD; it has a rate of its
        own, and learning_rate, momentum and weight_decay are then not used.
      layers: see `scale_by_k_fac`.
      axis_name: see `scale_by_mkor`.
      mu_dtype: storage of the momentum; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mkor
      >>> params = {"dense": {"kernel": jnp.ones((1, 1))}}
      >>> opt = mkor(0.5)
      >>> data = {"dense": jnp.ones((2, 1))}
      >>> updates, state = opt.update(
      ...     params, opt.init(params), params, layer_inputs=data, layer_cotangents=data)
      >>> float(updates["dense"]["kernel"][0, 0])
      -0.5
    """
    precondition = handed_on(scale_by_mkor)
    return chain(precondition, backend or heavy_ball(learning_rate, momentum, weight_decay))


def heavy_ball(
    learning_rate: optax.ScalarOrSchedule | None, momentum: Decay, weight_decay: NonNegative
) -> Flow:
    """SGD with coupled weight decay and undamped momentum."""
    if learning_rate is None:
        raise FlowError("learning_rate may be None only beside a backend, which has its own")
    return chain(
        decay_weights(weight_decay), trace(momentum), scale_by_learning_rate(learning_rate)
    )

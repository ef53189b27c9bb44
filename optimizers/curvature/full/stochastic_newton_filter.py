"""The filtered stochastic Newton method."""

from typing import Any

import optax

from ....registry import method
from ....transforms import (
    Decay,
    Flow,
    Length,
    Mask,
    NonNegative,
    Positive,
    Signal,
    chain,
    delay,
    flatten_tree,
    flow,
    handed_on,
    on_leaves,
    scale_by_learning_rate,
    scheduled,
    step_count,
    tap,
    transformation,
    unflatten_tree,
    where,
)
from ....transforms.curvature import all_finite, dense_hessian
from ....transforms.step_size import backtracking, keeps_loss
from .kalman import (
    choose,
    discriminative_update,
    gaussian,
    kalman_predict,
    whitened_mean,
)


@transformation()
def scale_by_stochastic_newton_filter(
    decay: Decay = 0.9,
    process_noise: Positive = 0.2,
    ridge: NonNegative = 1e-12,
    line_search: bool = True,
    max_halvings: Length = 4,
    sufficient_decrease: NonNegative = 0.95,
) -> Flow:
    """A Newton direction from gradients and Hessians that a Kalman filter smooths over batches.

    The hidden state is a random walk x' = decay x + noise with the stationary covariance
    S = process_noise / (1 - decay^2) I; the gradient of a batch is its mean, the Hessian its
    covariance. With mu_1 = g_1 and Sig_1 = H_1:

        P = (decay^2 Sig_{t-1} + process_noise I)^{-1}
        R = H_t^{-1},    R = R + S^{-1}  if an eigenvalue of R - S^{-1} is at most 1e-6
        Sig_t = (P + R - S^{-1})^{-1}
        mu_t = Sig_t (P decay mu_{t-1} + R g_t)
        u_t = s (Sig_t + ridge I)^{-1} mu_t

    s is the first of 1, 1/2, ... with f(x - s u) - f(x) <= -sufficient_decrease s <g_t, u>, else
    the last. Up to the ridge u is the Newton direction of the batch plus the damped last one: a
    heavy ball with matrices. For log-convex losses and small models: the state has d^2 + d
    numbers. Where the loss is not convex H may be singular or indefinite, and the last s a step
    upwards: take a larger ridge, and more halvings with less decrease asked for. Where its
    eigenvalues are far above S the method itself diverges: mu grows by their ratio.

    A step is left out where its direction is not finite, or where it would blow the loss up
    (`keeps_loss`); the taps `curvature_is_finite` and `loss_is_bounded` are then false.

    Args:
      decay: of the random walk, in [0, 1).
      process_noise: variance of its noise, positive.
      ridge: added to the covariance in the last solve.
      line_search: whether to backtrack; needs nothing but `value_fn`.
      max_halvings: how often the step is halved at most.
      sufficient_decrease: far stricter than Armijo's 1e-4: on a quadratic, 0.95 lets a Newton
        step pass at s = 1/16.

    References:
      Burkhart 2022, Discriminative Bayesian filtering lends momentum to the stochastic Newton
      method for minimizing log-convex functions (arXiv 2104.12949).
    """

    def step(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        measured = gaussian(flatten_tree(g), dense_hessian(value_fn, params, g))
        past = delay(measured, name="belief")
        predicted = kalman_predict(past, decay, process_noise)
        updated = discriminative_update(
            predicted, measured, (1 - scheduled(decay) ** 2) / scheduled(process_noise)
        )
        belief = choose(step_count() == 1, measured, updated)
        flat = whitened_mean(belief, ridge)
        is_usable = tap("curvature_is_finite", all_finite(flat))
        past << choose(is_usable, belief, past)
        u = unflatten_tree(where(is_usable, flat, 0.0), g)
        s: Any = 1.0
        if line_search:
            s = backtracking(
                value_fn,
                params,
                -u,
                sufficient_decrease=sufficient_decrease,
                max_steps=max_halvings,
            )
        is_safe = tap("loss_is_bounded", keeps_loss(value_fn, params, -s * u))
        return tap("step_size", where(is_safe, s, 0.0)) * u

    return flow(step)


@method(
    "Burkhart 2022, Discriminative Bayesian filtering lends momentum to the stochastic Newton "
    "method for minimizing log-convex functions",
    arxiv="2104.12949",
    tags=("curvature", "closure"),
    learning_rate=1.0,
    small_model={"ridge": 1.0, "max_halvings": 10, "sufficient_decrease": 0.1},
)
@transformation(synonyms={"mask": "trainable"})
def stochastic_newton_filter(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    decay: Decay = 0.9,
    process_noise: Positive = 0.2,
    ridge: NonNegative = 1e-12,
    line_search: bool = True,
    max_halvings: Length = 4,
    sufficient_decrease: NonNegative = 0.95,
    trainable: Mask | None = None,
) -> Flow:
    """The filtered stochastic Newton method; see `scale_by_stochastic_newton_filter`.

    Needs `value_fn`, the loss of the batch.

    Args:
      learning_rate: a factor on the step that the line search accepts; number or schedule.
      decay, process_noise, ridge, line_search, max_halvings, sufficient_decrease: see
        `scale_by_stochastic_newton_filter`.
      trainable: leaves that are trained, and enter the Hessian; the others are not moved. Default
        all.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import stochastic_newton_filter
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 10.0]) * x**2) / 2
      >>> params, opt = jnp.array([1.0, 1.0]), stochastic_newton_filter()
      >>> u, _ = opt.update(jax.grad(loss)(params), opt.init(params), params, value_fn=loss)
      >>> u.round(4).tolist()
      [-0.0625, -0.0625]
    """
    direction = handed_on(scale_by_stochastic_newton_filter)
    return on_leaves(trainable, chain(direction, scale_by_learning_rate(learning_rate)))

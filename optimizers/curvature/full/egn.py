"""Exact Gauss-Newton."""

from typing import Annotated

import optax

from ....registry import method
from ....transforms import (
    AtLeastOne,
    Decay,
    Flow,
    Hyperparameter,
    Interval,
    Mask,
    Positive,
    Signal,
    Size,
    debias,
    delay,
    ema,
    flow,
    is_neutral,
    lift_tree,
    minimum,
    named,
    on_leaves,
    scheduled,
    step_count,
    tap,
    transformation,
    where,
)
from ....transforms.curvature import (
    OutputsLoss,
    all_finite,
    gauss_newton_model_change,
    gauss_newton_solve,
)
from ....transforms.step_size import backtracking, loss_change

OpenFraction = Annotated[Hyperparameter, Interval(0.0, 1.0, low_open=True, high_open=True)]


@transformation()
def scale_by_egn(damping: Positive = 1.0, loss: OutputsLoss = "mse", momentum: Decay = 0.0) -> Flow:
    """The exact, damped Gauss-Newton direction of the batch.

        u_t = (J^T Q J + damping I)^{-1} J^T r = J^T (Q J J^T + damping I)^{-1} r
        m_t = momentum m_{t-1} + (1 - momentum) u_t,    direction m_t / (1 - momentum^t)

    J is the Jacobian of the outputs, r and Q are the gradient and the Hessian of the mean loss in
    them. The first form is a system of the size of the params, the second of the outputs of the
    batch; the smaller is solved. A direction that is not finite becomes zero.

    The incoming gradient is not used, only its shape. Needs `outputs_fn`, from the params to the
    outputs of the batch, and `outputs_loss_fn`, from these to the mean loss.

    Args:
      damping: added to the Gauss-Newton matrix, positive; number or scalar signal. What is added is
        no less than 16 times the last bit of the largest entry of the matrix.
      loss: how it couples the outputs: "mse" and "bce" (on logits) each output on its own, "ce"
        (softmax, logits) those of one example, on the last axis. Q and r themselves are taken from
        `outputs_loss_fn`, so its factors (1/2, class weights) are heeded.
      momentum: decay of the average of directions, debiased; 0 is none.

    References:
      Korbit, Adeyemi, Bemporad & Zanon 2024, Exact Gauss-Newton Optimization for Training Deep
      Neural Networks (arXiv 2405.14402). We follow the code that accompanied the paper.
    """

    def step(g: Signal, params: Signal, outputs_fn: Signal, outputs_loss_fn: Signal) -> Signal:
        u = gauss_newton_solve(outputs_fn, outputs_loss_fn, params, g, damping, loss)
        u = where(tap("curvature_is_finite", all_finite(u)), u, 0.0)
        if is_neutral(momentum):
            return u
        return u >> named("mu", ema(momentum)) >> debias(momentum)

    return flow(step)


loss_of_outputs = lift_tree(lambda loss, outputs: lambda params: loss(outputs(params)))


@method(
    "Korbit, Adeyemi, Bemporad & Zanon 2024, Exact Gauss-Newton Optimization for Training Deep "
    "Neural Networks",
    arxiv="2405.14402",
    tags=("curvature", "closure"),
    learning_rate=1.0,
)
@transformation(synonyms={"mask": "trainable"})
def egn(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    damping: Positive = 1.0,
    loss: OutputsLoss = "mse",
    momentum: Decay = 0.0,
    line_search: bool = False,
    aggressiveness: OpenFraction = 0.9,
    decrease_factor: OpenFraction = 0.8,
    increase_factor: AtLeastOne = 1.5,
    max_linesearch_steps: Size = 15,
    adaptive_damping: bool = False,
    trainable: Mask | None = None,
) -> Flow:
    """Exact Gauss-Newton, optionally with line search and adaptive damping.

    The direction is that of `scale_by_egn`. With line search, a step starts from the last one
    times `increase_factor`, at most `learning_rate`, and shrinks by `decrease_factor` until

        f(x) - f(x + s d) + machine epsilon >= -(1 - aggressiveness) s <grad f, d>

    holds; if it never does, the last s is taken. Adaptive damping compares the change of the loss
    with that of the quadratic model: below a quarter of it the damping grows by 1%, above three
    quarters it shrinks by 1%.

    Args:
      learning_rate: step, or largest and first step of the line search; number or schedule.
      damping, loss, momentum: see `scale_by_egn`.
      line_search: whether to search.
      aggressiveness: in (0, 1); the larger, the less decrease is asked for.
      decrease_factor: in (0, 1).
      increase_factor: at least 1.
      max_linesearch_steps: how often a step is decreased at most.
      adaptive_damping: as in the paper; disabled in the official code.
      trainable: leaves that are trained; the others are not moved. Default all.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import egn
      >>> params, opt = jnp.array([1.0]), egn(damping=1.0)
      >>> u, _ = opt.update(
      ...     params, opt.init(params), params,
      ...     outputs_fn=lambda x: x, outputs_loss_fn=lambda o: jnp.mean(o**2) / 2)
      >>> u.tolist()
      [-0.5]
    """

    def step(g: Signal, params: Signal, outputs_fn: Signal, outputs_loss_fn: Signal) -> Signal:
        value_fn = loss_of_outputs(outputs_loss_fn, outputs_fn)
        past = delay(0.0, name="damping") if adaptive_damping else None
        current = damping if past is None else where(step_count() == 1, damping, past)
        direction = -(g >> scale_by_egn(current, loss=loss, momentum=momentum))
        largest = scheduled(learning_rate)
        if line_search:
            last = delay(0.0, name="step_size")
            rate = last << backtracking(
                value_fn,
                params,
                direction,
                minimum(where(last == 0, largest, last) * increase_factor, largest),
                decrease_factor=decrease_factor,
                sufficient_decrease=1 - scheduled(aggressiveness),
                max_steps=max_linesearch_steps,
                max_step=largest,
                slack=True,
            )
            update = tap("step_size", rate) * direction
        else:
            update = largest * direction
        if past is not None:
            expected = gauss_newton_model_change(outputs_fn, outputs_loss_fn, params, update)
            rho = loss_change(value_fn, params, update) / where(expected == 0, 1.0, expected)
            factor = where(rho < 0.25, 1.01, where(rho > 0.75, 0.99, 1.0))
            past << current * where(expected == 0, 1.0, factor)
        return update

    return on_leaves(trainable, flow(step))

"""OASIS."""

import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Positive,
    Sampler,
    Signal,
    Size,
    absolute,
    decay_weights,
    delay,
    either,
    ema,
    flow,
    handed_on,
    hutchinson,
    is_neutral,
    maximum,
    named,
    scheduled,
    step_count,
    tap,
    transformation,
    where,
)
from ....transforms.closures import gradient_at
from ....transforms.step_size import adgd_step_size


@transformation()
def truncated_hessian(
    b2: Decay = 0.99,
    alpha: Positive = 1e-5,
    warmup_samples: Size = 1,
    num_samples: Size = 1,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """The averaged Hessian diagonal in absolute value, at least alpha, whatever comes in.

        D_1 = mean of the first estimates,    D_t = b2 D_{t-1} + (1 - b2) z_t * (H z_t)
        output = max(|D_t|, alpha)

    The arguments are those of `scale_by_oasis`.
    """
    usual = hutchinson(key, num_samples, sampler=sampler)
    first = hutchinson(key, warmup_samples, sampler=sampler)

    def step(g: Signal) -> Signal:
        is_first = step_count() == 1
        same = warmup_samples == num_samples
        estimate = g >> usual if same else g >> either(is_first, first, usual)
        past = delay(estimate)
        past << where(is_first, estimate, b2 * past + (1 - scheduled(b2)) * estimate)
        return maximum(absolute(past.written), alpha)

    return flow(step)


@transformation()
def scale_by_oasis(
    b2: Decay = 0.99,
    alpha: Positive = 1e-5,
    momentum: Decay = 0.0,
    warmup_samples: Size = 1,
    num_samples: Size = 1,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """The gradient over the truncated, averaged Hessian diagonal.

        D_1 = mean of the first estimates,    D_t = b2 D_{t-1} + (1 - b2) z_t * (H z_t)
        d_t = momentum d_{t-1} + (1 - momentum) g_t
        u_t = d_t / max(|D_t|, alpha)

    The signed estimates are averaged, and the absolute value is taken of the average. There is no
    zero start, hence no bias correction.

    Args:
      b2: decay of the curvature; the paper tries 0.95, 0.99, 0.995 and 0.999.
      alpha: least curvature: how large a step a flat direction may take.
      momentum: decay of the direction; not debiased.
      warmup_samples: probes of the first estimate.
      num_samples: probes of the others.
      key: seed or key of the Rademacher probes.
      sampler: `(key, count, params) -> tree` of probes; count is 0 at the first step.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Jahani et al. 2022, Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order
      Information (arXiv 2109.05198). We rest on the paper: no official code was found.
    """

    curvature = handed_on(truncated_hessian)

    def step(g: Signal) -> Signal:
        return _direction(g, momentum) / (g >> named("hessian", curvature))

    return flow(step)


def _direction(g: Signal, momentum: Decay) -> Signal:
    return g if is_neutral(momentum) else g >> named("mu", ema(momentum))


@method(
    "Jahani et al. 2022, Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order "
    "Information",
    arxiv="2109.05198",
    tags=("curvature", "closure", "noise", "own-rate"),
    learning_rate=0.1,
    small_model={"alpha": 0.1},
)
@transformation()
def oasis(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b2: Decay = 0.99,
    alpha: Positive = 1e-5,
    adaptive: bool = True,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    warmup_samples: Size = 1,
    num_samples: Size = 1,
    key: Key = 0,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """OASIS, by default with its own step size; the direction is that of `scale_by_oasis`.

        x_t = x_{t-1} - rate_t (u_t + weight_decay x_{t-1})

    The adaptive rate is `adgd_step_size` in the norm of the truncated diagonal of this step. Needs
    `value_fn` for Hessian-vector products, and for the gradient of this batch at the previous
    params; `hessian_diag` and `previous_grads` may be given instead.

    Args:
      learning_rate: the rate; number or schedule. If adaptive its first positive value is the
        first rate, and no other counts.
      b2, alpha: see `scale_by_oasis`.
      adaptive: whether the rate adapts itself.
      momentum: see `scale_by_oasis`.
      weight_decay: decoupled decay, multiplied by the rate.
      warmup_samples, num_samples, key, sampler: see `scale_by_oasis`.
      mask: leaves that decay; default all.
      nu_dtype: see `scale_by_oasis`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import oasis
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 10.0]) * x**2) / 2
      >>> params, opt = jnp.array([1.0, 1.0]), oasis(0.5)
      >>> u, _ = opt.update(jax.grad(loss)(params), opt.init(params), params, value_fn=loss)
      >>> u.tolist()
      [-0.5, -0.5]
    """

    curvature = handed_on(truncated_hessian)

    def step(
        g: Signal,
        params: Signal,
        value_fn: Signal | None = None,
        previous_grads: Signal | None = None,
    ) -> Signal:
        scale = g >> named("hessian", curvature)
        rate = scheduled(learning_rate)
        if adaptive:
            rate = adgd_step_size(
                rate, params, g, lambda at: gradient_at(at, value_fn, ready=previous_grads), scale
            )
            tap("rate", rate)
        direction = _direction(g, momentum) / scale >> decay_weights(weight_decay, mask=mask)
        return -rate * direction

    return flow(step)

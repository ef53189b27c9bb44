"""Adam with critical momenta."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Fraction,
    Mask,
    NonNegative,
    Signal,
    Size,
    chain,
    debias,
    debiased_root,
    decay_weights,
    delay,
    divide,
    ema,
    flow,
    global_sum,
    handed_on,
    leaf_norm,
    named,
    running_max,
    scale_by_learning_rate,
    scheduled,
    square,
    step_count,
    transformation,
    where,
)
from .priority_buffer import mean_of_buffer


@transformation()
def scale_by_critical_momenta(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    decay: Fraction = 0.7,
    capacity: Size = 5,
    amsgrad: bool = False,
    synced: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam driven by its momentum plus the mean of the momenta of the largest recent gradients.

        m_t = b1 m_{t-1} + (1 - b1) g_t,    m_1 = 0
        a_t = m_t + mean(buffer)
        v_t = b2 v_{t-1} + (1 - b2) a_t^2
        u_t = a_t / (1 - b1^t) / (sqrt(v_t / (1 - b2^t)) + eps)

    Then m_t enters the buffer with the norm of g_t as its priority, if there is room or an entry of
    less priority; see `mean_of_buffer`. The first step only puts the gradient into the buffer and
    moves nothing. |a| is up to twice |m|: the effective rate is larger than Adam's.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the debiased root.
      decay: of the priorities, per step.
      capacity: slots of the buffer.
      amsgrad: use the running maximum of v.
      synced: one priority for all leaves, the sum of their gradients' norms, instead of each
        leaf's own.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Malviya et al. 2023, Promoting Exploration in Memory-Augmented Adam using Critical Momenta
      (arXiv 2307.09638), and the class Adam_CM of chandar-lab/CMOptimizer, which we follow: in the
      paper the buffer has momenta from the start, and the first step moves.
    """

    def step(g: Signal) -> Signal:
        t = step_count()
        past = delay(g, name="mu")
        m = past << where(t == 1, past, b1 * past + (1 - scheduled(b1)) * g)
        norm = leaf_norm(g)
        priority = global_sum(norm) if synced else norm
        a = m + mean_of_buffer(where(t == 1, g, m), priority, capacity, decay)
        v = square(a) >> named("nu", ema(b2))
        if amsgrad:
            v = v >> named("nu_max", running_max())
        # a and v are 0 at first, where the derivative of the root is infinite.
        root = debiased_root(where(t == 1, 1.0, v), b2, eps)
        return divide(a >> debias(b1), root, eps)

    return flow(step)


@method(
    "Malviya et al. 2023, Promoting Exploration in Memory-Augmented Adam using Critical Momenta",
    arxiv="2307.09638",
    tags=("adam", "momentum"),
)
@transformation()
def adam_critical_momenta(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    decay: Fraction = 0.7,
    capacity: Size = 5,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    amsgrad: bool = False,
    synced: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with critical momenta; the rule is that of `scale_by_critical_momenta`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, decay, capacity, amsgrad, synced: see `scale_by_critical_momenta`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adam_critical_momenta
      >>> opt = adam_critical_momenta(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> state = opt.init(params)
      >>> updates, state = opt.update(params, state, params)
      >>> float(abs(updates).max())
      0.0
      >>> updates, state = opt.update(params, state, params)
      >>> [round(float(u), 2) for u in updates]
      [-3.72, 3.72]
    """
    return chain(
        handed_on(scale_by_critical_momenta),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

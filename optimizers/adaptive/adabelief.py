"""AdaBelief."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    chain,
    debias,
    debiased_root,
    decay_weights,
    divide_or_zero,
    ema,
    flow,
    handed_on,
    named,
    running_max,
    scale_by_learning_rate,
    scheduled,
    square,
    transformation,
    where,
)
from ...transforms.accumulate import radam_rectification
from ...transforms.step_size import DecayForm


@transformation()
def scale_by_adabelief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    rectify: bool = True,
    degenerated_to_sgd: bool = True,
    amsgrad: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam that divides by the deviation of the gradient from its own momentum.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        s_t = b2 s_{t-1} + (1 - b2) (g_t - m_t)^2 + eps
        u_t = m_t / (1 - b1^t) / (sqrt(s_t / (1 - b2^t)) + eps)

    With `rectify` and n_t, r_t of `transforms.accumulate.radam_rectification(b2)`:

        n_t >= 5:  u_t = r_t m_t / (1 - b1^t) / (sqrt(s_t / (1 - b2^t)) + eps / sqrt(1 - b2^t))
        n_t < 5:   u_t = m_t / (1 - b1^t)  if degenerated_to_sgd  else  0

    The eps in s_t accumulates, to eps / (1 - b2).

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1). With b2 < 2/3 the rectified rule never divides.
      eps: added to s at every step, and to its root.
      rectify: shorten the steps while s rests on few gradients.
      degenerated_to_sgd: what a rectified step does as long as s cannot be trusted at all.
      amsgrad: divide by the root of the largest s so far; only without `rectify`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Zhuang et al. 2020, AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
      Gradients (arXiv 2010.07468). The paper has no rectification and an eps of 1e-8; we follow the
      authors' package adabelief-pytorch 0.2. `optax.adabelief` is `rectify=False` with
      eps_root = eps.
    """

    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1))
        s = square(g - m) + scheduled(eps) / (1 - scheduled(b2)) >> named("nu", ema(b2))
        m = m >> debias(b1)
        if not rectify:
            largest = s >> named("nu_max", running_max()) if amsgrad else s
            return divide_or_zero(m, debiased_root(largest, b2, eps))
        length, factor = radam_rectification(b2)
        adaptive = divide_or_zero(m, debiased_root(s, b2, eps, eps_before_correction=True))
        return where(length >= 5, factor * adaptive, m if degenerated_to_sgd else 0)

    return flow(step)


@method(
    "Zhuang et al. 2020, AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed "
    "Gradients",
    arxiv="2010.07468",
    tags=("adam", "decoupled-decay"),
    learning_rate=0.01,
)
@transformation(
    renamed={
        "eps_root": "eps is added to s and to its root, as with Optax's eps_root = eps",
        "nesterov": "there is no look-ahead",
    }
)
def adabelief(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    weight_decouple: bool = True,
    fixed_decay: bool = False,
    rectify: bool = True,
    degenerated_to_sgd: bool = True,
    amsgrad: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaBelief; the rule is that of `scale_by_adabelief`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, rectify, degenerated_to_sgd, amsgrad: see `scale_by_adabelief`.
      weight_decay: decay of the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      weight_decouple: decay the params; otherwise add the decay to the gradient (L2).
      fixed_decay: the decoupled decay is not multiplied by the learning rate.
      mu_dtype, nu_dtype: see `scale_by_adabelief`.

    Returns:
      The optimizer; its state is twice the size of the params, three times with an active
      `amsgrad`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adabelief
      >>> opt = adabelief(0.5, b1=0.5, rectify=False)
      >>> params = jnp.array([1.0, -4.0])
      >>> print(opt.update(params, opt.init(params))[0].round(3))
      [-1.  1.]
    """
    direction = handed_on(scale_by_adabelief)
    if not weight_decouple:
        regularised = decay_weights(weight_decay, mask=mask)
        return chain(regularised, direction, scale_by_learning_rate(learning_rate))
    form: DecayForm = "independent" if fixed_decay else "decoupled"
    return chain(
        direction,
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, form, learning_rate=learning_rate, mask=mask),
    )

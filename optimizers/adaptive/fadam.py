"""FAdam."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    Signal,
    chain,
    debias,
    decay_weights,
    divide,
    ema,
    flow,
    handed_on,
    is_neutral,
    leaf_rms,
    maximum,
    named,
    scale_by_learning_rate,
    sqrt,
    square,
    transformation,
)


@transformation()
def scale_by_fadam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    power: Positive = 0.5,
    clip_threshold: Positive = 1.0,
    weight_decay: NonNegative = 0.1,
    mask: Mask | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam as natural gradient: precondition by the empirical Fisher information, then average.

        f_t = v_t / (1 - b2^t),    v_t = b2 v_{t-1} + (1 - b2) g_t^2
        D_t = f_t^power + eps max(1, rms(g_t))
        n_t = clip(g_t / D_t),    clip(x) = x clip_threshold / max(1, rms(x))
        m_t = b1 m_{t-1} + (1 - b1) n_t
        u_t = m_t + weight_decay clip(x_{t-1} / D_t)

    rms is taken over each leaf. m is not debiased. The weights decay in the natural geometry, too:
    they are divided by D, and the clip alone contains them where gradients are tiny.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the Fisher information, in [0, 1).
      eps: added to the root, times rms(g) where that exceeds 1.
      power: of the Fisher information.
      clip_threshold: rms of a clipped leaf; one whose rms is below 1 is multiplied by it as well.
      weight_decay: coefficient of the preconditioned decay.
      mask: leaves that decay; default all.
      mu_dtype: storage dtype of m.
      nu_dtype: storage dtype of v.

    References:
      Hwang 2024, FAdam: Adam is a natural gradient optimizer using diagonal empirical Fisher
      information (arXiv 2405.12807), and lessw2020/FAdam_PyTorch, which we follow in its eps (the
      paper lets it shrink with small gradients) and its clip (the paper divides by
      max(1, rms / clip)). The code keeps f itself, with a decay that debiases; it is the same.
    """

    def clipped(x: Signal) -> Signal:
        return x * (clip_threshold / maximum(1.0, leaf_rms(x)))

    def direction(g: Signal) -> tuple[Signal, Signal]:
        f = square(g) >> named("fim", ema(b2, dtype=nu_dtype)) >> debias(b2)
        root = sqrt(f) if is_neutral(power, 0.5) else f**power
        root = root + eps * maximum(1.0, leaf_rms(g))
        m = clipped(divide(g, root, eps)) >> named("mu", ema(b1, dtype=mu_dtype))
        return m, root

    def step(g: Signal) -> Signal:
        return direction(g)[0]

    def decaying_step(g: Signal, params: Signal) -> Signal:
        m, root = direction(g)
        preconditioned = clipped(divide(params, root, eps))
        return m >> decay_weights(weight_decay, mask=mask, at=preconditioned)

    return flow(step if is_neutral(weight_decay) else decaying_step, name="scale_by_fadam")


@method(
    "Hwang 2024, FAdam: Adam is a natural gradient optimizer using diagonal empirical Fisher "
    "information",
    arxiv="2405.12807",
    tags=("decoupled-decay", "bounded"),
    small_model={"weight_decay": 0.01},
)
@transformation(synonyms={"momentum_dtype": "mu_dtype", "fim_dtype": "nu_dtype"})
def fadam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    power: Positive = 0.5,
    clip_threshold: Positive = 1.0,
    weight_decay: NonNegative = 0.1,
    mask: Mask | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """FAdam; the rule is that of `scale_by_fadam`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, power, clip_threshold, weight_decay, mask, mu_dtype, nu_dtype: see
        `scale_by_fadam`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fadam
      >>> opt = fadam(0.5, weight_decay=0.0)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.05, 0.05]
    """
    return chain(
        handed_on(scale_by_fadam),
        scale_by_learning_rate(learning_rate),
    )

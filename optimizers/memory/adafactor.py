"""Adafactor."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Length,
    Mask,
    NonNegative,
    Positive,
    Scalar,
    Signal,
    decay_weights,
    ema,
    flow,
    handed_on,
    is_neutral,
    leaf_rms,
    maximum,
    minimum,
    named,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.accumulate import scale_by_factored_rms


@transformation()
def scale_by_adafactor(
    decay_rate: Positive = 0.8,
    decay_offset: int = 0,
    clip_threshold: Positive | None = 1.0,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    min_dim_size_to_factor: Length = 128,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """The gradient over a factored second moment, clipped to a root mean square.

        b2_t = 1 - (t - decay_offset)^(-decay_rate)
        U = g_t / sqrt(V_t)          V_t of `transforms.accumulate.scale_by_factored_rms(b2_t)`
        u_t = U / max(1, RMS(U) / clip_threshold)      leaf by leaf

    Args:
      decay_rate: how fast the memory of the second moment grows.
      decay_offset: steps that the growth starts late; t - decay_offset is at least 1.
      clip_threshold: largest root mean square of a leaf; None does not clip.
      eps: added to the squared gradients; in float16 use 1e-7.
      factored, min_dim_size_to_factor: see `transforms.accumulate.scale_by_factored_rms`.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (arXiv
      1804.04235). T5, fairseq and transformers factor every leaf with two or more axes:
      `min_dim_size_to_factor=1`.
    """

    def step(g: Signal) -> Signal:
        b2 = 1 - maximum(step_count() - decay_offset, 1) ** (-1.0 * scheduled(decay_rate))
        second_moment = scale_by_factored_rms(
            b2, eps=eps, factored=factored, min_dim_size_to_factor=min_dim_size_to_factor
        )
        u = g >> second_moment
        return u if clip_threshold is None else u / maximum(1, leaf_rms(u) / clip_threshold)

    return flow(step)


@method(
    "Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arxiv="1804.04235",
    tags=("low-memory", "matrix"),
    learning_rate=0.01,
)
@transformation(
    synonyms={
        "clipping_threshold": "clip_threshold",
        "momentum": "b1",
        "dtype_momentum": "mu_dtype",
        "momentum_dtype": "mu_dtype",
        "weight_decay_mask": "mask",
    },
    renamed={
        "weight_decay_rate": "write weight_decay=..., scale_weight_decay=False for Optax's decay",
    },
)
def adafactor(
    learning_rate: optax.ScalarOrSchedule | None = None,
    decay_rate: Positive = 0.8,
    decay_offset: int = 0,
    b1: Decay | None = None,
    clip_threshold: Positive | None = 1.0,
    eps: NonNegative = 1e-30,
    min_scale: NonNegative = 1e-3,
    factored: bool = True,
    min_dim_size_to_factor: Length = 128,
    multiply_by_parameter_scale: bool = True,
    warmup_init: bool = False,
    weight_decay: NonNegative = 0.0,
    scale_weight_decay: bool = True,
    mu_dtype: DType | None = None,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adafactor; with u_t the direction of `scale_by_adafactor`:

        alpha_t = rho_t max(min_scale, RMS(x_{t-1}))      leaf by leaf
        M_t = b1 M_{t-1} + (1 - b1) alpha_t u_t           M_t = alpha_t u_t without b1
        x_t = x_{t-1} - M_t - weight_decay alpha_t x_{t-1}

    Args:
      learning_rate: rho, number or schedule; None is the paper's min(1e-2, 1 / sqrt(t)).
      decay_rate, decay_offset, clip_threshold, eps, factored, min_dim_size_to_factor, nu_dtype: see
        `scale_by_adafactor`.
      b1: decay of a momentum of finished steps, not debiased; default none.
      min_scale: least scale of a leaf, by which one that is 0 moves.
      multiply_by_parameter_scale: False leaves out the RMS: alpha_t = rho_t.
      warmup_init: let the paper's rho rise as 1e-6 t.
      weight_decay: decay of the params before the step.
      scale_weight_decay: False leaves alpha_t out of the decay (Optax).
      mu_dtype: storage dtype of the momentum; default at least float32.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer. Its state is a row and a column per factored matrix.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adafactor
      >>> opt = adafactor(0.5)
      >>> params = jnp.array([2.0, -2.0])
      >>> print(opt.update(params, opt.init(params), params)[0].round(3))
      [-1.  1.]

    References:
      Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (arXiv
      1804.04235). The paper has no decay. The authors' code multiplies the relative step by 0.05
      without parameter scaling; pass a learning rate for that.
    """
    direction = handed_on(scale_by_adafactor)

    def descent(g: Signal, alpha: Scalar) -> Signal:
        u = alpha * (g >> direction)
        if b1 is not None:
            u = u >> named("mu", ema(b1, dtype=mu_dtype))
        decay = scheduled(weight_decay) * alpha if scale_weight_decay and decays else weight_decay
        return -u >> decay_weights(decay, "independent", mask=mask)

    def rate() -> Scalar:
        if learning_rate is not None:
            return scheduled(learning_rate)
        t = step_count() * 1.0
        return minimum(1e-6 * t if warmup_init else 1e-2, t**-0.5)

    decays = not (is_neutral(weight_decay))
    if not multiply_by_parameter_scale:
        return flow(lambda g: descent(g, rate()))
    return flow(lambda g, params: descent(g, rate() * maximum(min_scale, leaf_rms(params))))

"""RMSProp."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    NonNegativeConstant,
    Signal,
    chain,
    debias,
    divide_or_zero,
    ema,
    flow,
    maximum,
    scale_by_learning_rate,
    sqrt,
    square,
    trace,
    transformation,
)


@transformation()
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegativeConstant = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    bias_correction: bool = False,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """The gradient over the root of its mean square, entry by entry.

        v_t = decay v_{t-1} + (1 - decay) g_t^2,    v_0 = initial_scale
        m_t = decay m_{t-1} + (1 - decay) g_t       m = 0 unless centered
        u_t = g_t / sqrt(v_t - m_t^2 + eps)         or  g_t / (sqrt(v_t - m_t^2) + eps)

    What is 0/0 is 0.

    Args:
      decay: of both averages, in [0, 1).
      eps: keeps the root from zero.
      initial_scale: v_0.
      eps_in_sqrt: eps is added under the root, as in TensorFlow; otherwise to it, as in PyTorch.
      centered: divide by the deviation of the gradient from its average.
      bias_correction: debias both averages.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Tieleman & Hinton 2012, Lecture 6.5 of Neural Networks for Machine Learning; Graves 2013,
      Generating Sequences With Recurrent Neural Networks (arXiv 1308.0850), for `centered`. The
      arguments are those of `optax.rmsprop`.
    """

    def step(g: Signal) -> Signal:
        v = square(g) >> ema(decay, start=initial_scale, name="nu")
        v = v >> debias(decay) if bias_correction else v
        if centered:
            m = g >> ema(decay, name="mu")
            m = m >> debias(decay) if bias_correction else m
            v = maximum(v - square(m), 0.0)
        root = sqrt(v + eps) if eps_in_sqrt else sqrt(v) + eps
        return divide_or_zero(g, root)

    return flow(step)


@method(
    "Tieleman & Hinton 2012, Lecture 6.5 of Neural Networks for Machine Learning: RMSProp",
    tags=("adam",),
    learning_rate=3e-3,
)
@transformation()
def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegativeConstant = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Decay | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """RMSProp, with the arguments of `optax.rmsprop`; the rule is that of `scale_by_rms`.

    Args:
      learning_rate: number or schedule.
      decay, eps, initial_scale, eps_in_sqrt, centered, bias_correction: see `scale_by_rms`.
      momentum: decay of a heavy ball of the finished steps, rate included; None for none.
      nesterov: look one step ahead along the heavy ball.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; its state is the size of the params, and once more for each of `centered` and
      `momentum`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import rmsprop
      >>> opt = rmsprop(1.0, decay=0.75)
      >>> g = jnp.array([3.0, -2.0])
      >>> opt.update(g, opt.init(g))[0].round(3).tolist()
      [-2.0, 2.0]
    """
    scaled = scale_by_rms(
        decay=decay,
        eps=eps,
        initial_scale=initial_scale,
        eps_in_sqrt=eps_in_sqrt,
        centered=centered,
        bias_correction=bias_correction,
    )
    if momentum is None:
        return chain(scaled, scale_by_learning_rate(learning_rate))
    return chain(scaled, scale_by_learning_rate(learning_rate), trace(momentum, nesterov))

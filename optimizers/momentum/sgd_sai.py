"""SGD-SaI: learning rates scaled at initialization."""

import math

import jax
import jax.numpy as jnp
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
    decay_weights,
    ema,
    flow,
    handed_on,
    is_neutral,
    lift,
    named,
    saturate,
    scale_by_learning_rate,
    scheduled,
    transformation,
)
from ...transforms.accumulate import freeze_first
from ...transforms.notation.roots import root, squared, usable


@transformation()
def scale_by_sai(
    momentum: Decay = 0.9, eps: NonNegative = 1e-8, *, mu_dtype: DType | None = None
) -> Flow:
    """Momentum, each leaf scaled for good by the signal-to-noise ratio of its first gradient.

        gsnr = |g_1| / (std(g_1) + eps)                 (one number per leaf, then kept)
        m_t = momentum m_{t-1} + (1 - momentum) g_t,    m_1 = g_1
        u_t = gsnr m_t

    std is the sample standard deviation over the leaf, 0 for a single entry: such leaves, and
    constant ones, get enormous steps and are better optimized apart. A leaf whose first gradient is
    zero never moves. The first gradient must be the averaged one where gradients are accumulated.

    Args:
      momentum: decay of the momentum, in [0, 1); exactly 0 keeps none.
      eps: added to the standard deviation.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Xu et al. 2024, No More Adam: Learning Rate Scaling at Initialization is All You Need (arXiv
      2412.11768), and AnonymousAlethiometer/SGD_SaI, version 1.0.3, which we follow.
    """
    unaveraged = is_neutral(momentum)

    def step(g: Signal) -> Signal:
        gsnr = _signal_to_noise(g, scheduled(eps)) >> named("gsnr", freeze_first())
        m = g if unaveraged else g >> named("mu", ema(momentum, from_first=True))
        return saturate(gsnr * m)

    return flow(step)


def _gsnr(x: jax.Array, eps: float | jax.Array) -> jax.Array:
    """In units of the largest entry: of the largest numbers of the format no mean is taken."""
    size = usable(jnp.max(jnp.abs(x), initial=0))
    y = x / size
    away = y - jnp.mean(y) if x.size > 1 else jnp.zeros_like(y)
    length, spread = (root(jnp.sum(squared(z))) for z in (y, away))
    noise = spread / math.sqrt(max(x.size - 1, 1)) + eps / size
    empty = noise == 0
    return jnp.where(empty, 0, length / jnp.where(empty, 1, noise))


_signal_to_noise = lift(_gsnr, "gsnr")


@method(
    "Xu et al. 2024, No More Adam: Learning Rate Scaling at Initialization is All You Need",
    arxiv="2412.11768",
    tags=("momentum", "layerwise", "low-memory"),
    learning_rate=1e-2,
    small_model={"eps": 1.0},
)
@transformation()
def sgd_sai(
    learning_rate: optax.ScalarOrSchedule = 1e-2,
    momentum: Decay = 0.9,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-2,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """SGD-SaI; the rule is that of `scale_by_sai`, with decoupled weight decay.

    Args:
      learning_rate: number or schedule.
      momentum, eps: see `scale_by_sai`.
      weight_decay: decoupled decay, multiplied by the rate but not by the leaf's scale.
      mask: leaves that decay; default all.
      mu_dtype: storage of the first moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgd_sai
      >>> opt = sgd_sai(0.1, weight_decay=0.0)
      >>> params = jnp.array([1.0, 3.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.224, -0.671]
    """
    return chain(
        handed_on(scale_by_sai),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

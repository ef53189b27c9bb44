"""UPGD: utility-based perturbed gradient descent."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Sampler,
    Signal,
    chain,
    debias,
    decay_weights,
    divide_or_zero,
    draw_like,
    ema,
    flow,
    global_max,
    handed_on,
    lift,
    merge,
    named,
    normalize,
    on_leaves,
    scale_by_adam,
    scale_by_learning_rate,
    sigmoid,
    split,
    transformation,
    zeros_like,
)


@lift
def bounded(x: jax.Array) -> jax.Array:
    """The entries within the number format, so that the share of an infinite one is a number."""
    most = jnp.finfo(x.dtype).max
    return jnp.clip(x, -most, most)


@transformation()
def scale_by_upgd(
    beta_utility: Decay = 0.0,
    sigma: NonNegative = 1.0,
    key: Key = 0,
    sampler: Sampler | None = None,
    scope: Literal["global", "local"] = "global",
    protect: bool = True,
    adaptive: bool = False,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-5,
    trainable: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Noise for the weights that are of no use, protection for those that are.

        U_t = beta U_{t-1} - (1 - beta) g_t x_{t-1}            (the utility, to first order)
        s_t = sigmoid(U_t / (1 - beta^t) / max(U_t))           scope="global": over all leaves
        s_t = sigmoid(U_t / |U_t|)                             "local": along the last axis
        n_t = sigma times a standard normal
        u_t = (g_t + n_t) (1 - s_t)      if protect, else      g_t + n_t (1 - s_t)
        u_t = 2 (adam(g_t) + n_t) (1 - s_t)                    if adaptive

    A weight without utility has s = 1/2 and moves by half a gradient; the 2 undoes that. The global
    maximum is that of U before it is debiased, and negative if all utilities are, as in the code.

    Args:
      beta_utility: decay of the utility, in [0, 1).
      sigma: standard deviation of the noise, before the learning rate.
      key: seed or key of the noise.
      sampler: `(key, count, params) -> tree` of standard normals in place of the noise; count is 0
        at the first step.
      scope: "global" or "local".
      protect: shrink the gradient of useful weights, too, and not the noise alone; always so if
        `adaptive`.
      adaptive: take Adam's direction in place of the gradient.
      b1, b2, eps: of Adam.
      trainable: leaves that the method applies to; the others (gates, in the authors' code) stay as
        they are and take no part in the maximum. Default all.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Elsayed & Mahmood 2024, Addressing Loss of Plasticity and Catastrophic Forgetting in Continual
      Learning (arXiv 2404.00781), and mohmdelsayed/upgd, which we follow. Utilities of second order
      and of features are not covered.
    """

    adam = handed_on(scale_by_adam)

    def step(g: Signal, params: Signal) -> Signal:
        g, frozen = split(g, True if trainable is None else trainable)
        utility = bounded(-g * params) >> named("utility", ema(beta_utility))
        fair = utility >> debias(beta_utility)
        local = scope == "local"
        scaled = normalize(fair, -1, 1e-12) if local else divide_or_zero(fair, global_max(utility))
        free = 1 - sigmoid(scaled)
        noise = sigma * draw_like(g, key, "gaussian", sampler)
        if adaptive:
            moved = 2 * ((g >> adam) + noise) * free
        else:
            moved = (g + noise) * free if protect else g + noise * free
        return merge(moved, zeros_like(frozen))

    return flow(step)


@method(
    "Elsayed & Mahmood 2024, Addressing Loss of Plasticity and Catastrophic Forgetting in "
    "Continual Learning",
    arxiv="2404.00781",
    tags=("noise",),
    learning_rate=0.1,
    small_model={"sigma": 0.01},
)
@transformation()
def upgd(
    learning_rate: optax.ScalarOrSchedule = 1e-5,
    weight_decay: NonNegative = 0.0,
    beta_utility: Decay = 0.0,
    sigma: NonNegative = 1.0,
    key: Key = 0,
    sampler: Sampler | None = None,
    scope: Literal["global", "local"] = "global",
    protect: bool = True,
    adaptive: bool = False,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-5,
    trainable: Mask | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """UPGD; the rule is that of `scale_by_upgd`, with decoupled weight decay.

    Args:
      learning_rate: number or schedule.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: trainable leaves that decay; default all.
      beta_utility, sigma, key, sampler, scope, protect, adaptive, b1, b2, eps, trainable: see
        `scale_by_upgd`. The authors' adaptive version has weight_decay 0.001, beta_utility 0.999
        and sigma 0.001.
      mu_dtype: see `scale_by_upgd`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import upgd
      >>> opt = upgd(1.0, sigma=0.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> updates, state = opt.update(jnp.array([-1.0, -2.0]), opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [0.269, 1.762]
    """
    return chain(
        handed_on(scale_by_upgd),
        on_leaves(trainable, decay_weights(weight_decay, mask=mask)),
        scale_by_learning_rate(learning_rate),
    )

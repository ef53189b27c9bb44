"""MeZO, and ZO-SGD, the benchmark's name for it."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Key,
    Mask,
    NonNegative,
    Positive,
    Sampler,
    Size,
    chain,
    decay_weights,
    scale_by_learning_rate,
    trace,
    transformation,
)
from ...transforms.notation import is_neutral
from ...transforms.zeroth_order import delayed_spsa_step, spsa_gradient


@method(
    "Malladi et al. 2023, Fine-Tuning Language Models with Just Forward Passes",
    arxiv="2305.17333",
    tags=("low-memory", "closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def mezo(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    n_samples: Size = 1,
    one_sided: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
    delayed_update: bool = False,
) -> Flow:
    """Gradient descent on zeroth-order estimates, in the memory of inference.

        c_t = (L(theta + eps z_t) - L(theta - eps z_t)) / (2 eps),    z_t ~ N(0, I)
        theta <- theta - lr (c_t z_t + wd theta)

    Args:
      learning_rate: lr; number or schedule. 1e-7 to 1e-5 for language models.
      perturbation_scale, n_samples, one_sided, key, sampler: see `spsa_gradient`.
      weight_decay: wd, multiplied by the rate, on the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all. The
        authors leave out biases and layer norms.
      delayed_update: each call takes the step of the call before, and measures at the params after
        it, as ZO2 does: the same iterates, one call later. `flush` takes the last one.

    Returns:
      The optimizer; `update` needs `params` and `value_fn` (params -> loss of this batch), and may
      be given None as gradient. Its state is a counter and a key. `replay` rebuilds a
      run from its slopes.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import mezo
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = mezo(0.1), jnp.array([1.0, -2.0])
      >>> state = opt.init(x)
      >>> for _ in range(50):
      ...     u, state = opt.update(None, state, x, value_fn=loss)
      ...     x = optax.apply_updates(x, u)
      >>> bool(loss(x) < 1e-2)
      True

    References:
      Malladi et al. 2023 (arXiv 2305.17333); princeton-nlp/MeZO perturbs in place, which adds up
      rounding; we evaluate at two copies. The delay: Wang et al. 2025, ZO2 (arXiv 2503.12668).
    """
    if delayed_update:
        return delayed_spsa_step(
            learning_rate,
            weight_decay=weight_decay,
            mask=mask,
            perturbation_scale=perturbation_scale,
            n_samples=n_samples,
            one_sided=one_sided,
            key=key,
            sampler=sampler,
        )
    return chain(
        spsa_gradient(perturbation_scale, n_samples, one_sided, key, sampler),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("low-memory", "closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def zo_sgd(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    n_samples: Size = 1,
    one_sided: bool = False,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """The rule of `mezo`, with momentum if wanted.

        m_t = momentum m_{t-1} + g_t,    theta <- theta - lr (m_t + wd theta)

    Args:
      learning_rate: lr; number or schedule.
      perturbation_scale, n_samples, one_sided, key, sampler: see `spsa_gradient`.
      momentum: of a heavy ball, undamped; 0 keeps no buffer.
      weight_decay: wd, multiplied by the rate, on the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`. Its state is a counter and a key, and
      one buffer of the params' size with momentum.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import zo_sgd
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = zo_sgd(0.1, n_samples=4, one_sided=True), jnp.array([1.0, -2.0])
      >>> u, state = opt.update(None, opt.init(x), x, value_fn=loss)
      >>> bool(loss(x + u) < loss(x))
      True

    References:
      Zhang et al. 2024 (arXiv 2402.11592). ZO-Bench/ZO-LLM has no weight decay here and refuses
      several samples and schedules; the one-sided difference is divided by eps, as there.
    """
    return chain(
        spsa_gradient(perturbation_scale, n_samples, one_sided, key, sampler),
        *(() if is_neutral(momentum) else (trace(momentum),)),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

"""NAdam, with and without decoupled weight decay."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    chain,
    decay_weights,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)


@method("Dozat 2016, Incorporating Nesterov Momentum into Adam", tags=("adam", "nesterov"))
@transformation(renamed={"nesterov": "it always looks ahead; adam does not"})
def nadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with Nesterov's momentum, as `optax.nadam`: `scale_by_adam` with `nesterov`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, eps_root, mu_dtype: see `scale_by_adam`.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import nadam
      >>> opt = nadam(1.0, b1=0.5)
      >>> g = jnp.array([3.0, -2.0])
      >>> [f"{u:.3f}" for u in opt.update(g, opt.init(g))[0]]
      ['-1.333', '1.333']

    References:
      Dozat 2016, Incorporating Nesterov Momentum into Adam. Its schedule of b1 is left out, as in
      Optax.
    """
    return chain(
        scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=True),
        scale_by_learning_rate(learning_rate),
    )


@method(
    "Dozat 2016, Incorporating Nesterov Momentum into Adam",
    tags=("adam", "nesterov", "decoupled-decay"),
)
@transformation(renamed={"nesterov": "it always looks ahead; adamw does not"})
def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """NAdam with decoupled weight decay, as `optax.nadamw`.

        x_t = x_{t-1} - r (u_t + weight_decay x_{t-1}),    u_t as in `nadam`

    Args:
      learning_rate, b1, b2, eps, eps_root, mu_dtype: see `nadam`.
      weight_decay: decay of the params, multiplied by the rate.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, and its state is twice their size.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import nadamw
      >>> opt = nadamw(1.0, b1=0.5, weight_decay=0.5)
      >>> x = jnp.array([3.0, -2.0])
      >>> [f"{u:.3f}" for u in opt.update(x, opt.init(x), x)[0]]
      ['-2.833', '2.333']

    References:
      Dozat 2016, Incorporating Nesterov Momentum into Adam; Loshchilov & Hutter 2019, Decoupled
      Weight Decay Regularization (arXiv 1711.05101).
    """
    return chain(
        scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=True),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

"""C-AdamW."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    chain,
    decay_weights,
    handed_on,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)
from .cautious import CautiousScale, cautious


@transformation()
def scale_by_c_adamw(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    scale: CautiousScale | None = "mean",
    min_mean: Positive = 1e-3,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam's direction without the entries that disagree with the present gradient.

        u_t = sqrt(1 - b2^t) / (1 - b1^t) m_t / (sqrt(v_t) + eps)

    with m and v as in `scale_by_adam`, masked and scaled as in `cautious`.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, before bias correction.
      bias_correction: False leaves out the first factor.
      scale, min_mean: see `cautious`.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Liang et al. 2024, Cautious Optimizers: Improving Training with One Line of Code (arXiv
      2411.16085). We follow the per-parameter path of the authors' c_adamw.py; its multi-tensor
      path adds eps after bias correction.
    """
    adam = handed_on(scale_by_adam, eps_before_correction=True)
    return cautious(adam, scale, min_mean, descends=False)


@method(
    "Liang et al. 2024, Cautious Optimizers: Improving Training with One Line of Code",
    arxiv="2411.16085",
    tags=("cautious", "adam", "decoupled-decay"),
)
@transformation()
def c_adamw(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    bias_correction: bool = True,
    scale: CautiousScale | None = "mean",
    min_mean: Positive = 1e-3,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Cautious AdamW; the rule is that of `scale_by_c_adamw`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, bias_correction, scale, min_mean: see `scale_by_c_adamw`.
      weight_decay: decoupled decay, multiplied by the rate; never masked by the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_c_adamw`.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import c_adamw
      >>> opt = c_adamw(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> state = opt.init(params)
      >>> _, state = opt.update(params, state)
      >>> print(opt.update(jnp.array([1.0, 1.0]), state)[0].round(3) + 0.0)
      [-1.  0.]
    """
    return chain(
        handed_on(scale_by_c_adamw),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )

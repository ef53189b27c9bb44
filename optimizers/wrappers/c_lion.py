"""C-Lion."""

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
    scale_by_learning_rate,
    transformation,
)
from ...transforms.directions import scale_by_lion
from .cautious import CautiousScale, cautious


@transformation()
def scale_by_c_lion(
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    scale: CautiousScale | None = "count",
    min_mean: Positive = 1e-3,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Lion's direction without the entries that disagree with the present gradient.

    The direction is that of `scale_by_lion`, masked and scaled as in `cautious`. With
    scale="count" a leaf all of whose n entries agree moves by n / (n + 1), a scalar by a half.

    Args:
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      scale, min_mean: see `cautious`.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Liang et al. 2024, Cautious Optimizers: Improving Training with One Line of Code (arXiv
      2411.16085); paper and the authors' c_lion.py agree.
    """
    return cautious(handed_on(scale_by_lion), scale, min_mean, descends=False)


@method(
    "Liang et al. 2024, Cautious Optimizers: Improving Training with One Line of Code",
    arxiv="2411.16085",
    tags=("cautious", "sign", "decoupled-decay"),
    learning_rate=3e-4,
)
@transformation()
def c_lion(
    learning_rate: optax.ScalarOrSchedule = 1e-4,
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    scale: CautiousScale | None = "count",
    min_mean: Positive = 1e-3,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Cautious Lion; the rule is that of `scale_by_c_lion`.

    Args:
      learning_rate: number or schedule.
      b1, b2, scale, min_mean: see `scale_by_c_lion`.
      weight_decay: decoupled decay, multiplied by the rate; never masked by the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype: see `scale_by_c_lion`.

    Returns:
      The optimizer; its state is the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import c_lion
      >>> opt = c_lion(0.5)
      >>> params = jnp.array([1.0, -4.0, 2.0])
      >>> opt.update(params, opt.init(params), params)[0].tolist()
      [-0.375, 0.375, -0.375]
    """
    return chain(
        handed_on(scale_by_c_lion),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )

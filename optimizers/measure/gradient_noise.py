"""The batch size at which noise and gradient are of a size."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import PositiveConstant, checked
from .gradient_moments import gradient_moments
from .vectors import check_real, dot, in_unit


@method(
    "McCandlish et al. 2018, An Empirical Model of Large-Batch Training",
    arxiv="1812.06162",
    tags=("large-batch", "measurement"),
    kind="measurement",
    required={"grads": np.eye(2)},
)
@checked()
def gradient_noise(grads: optax.Updates, batch_size: PositiveConstant = 1) -> Any:
    r"""The simple noise scale of N gradients of batches of b examples.

    .. math::
        B = \frac{b\, c}{|g|^2 - c / N}

    with g their mean and c the trace of their covariance: numerator and denominator are unbiased
    estimates of the trace for single examples and of the squared true gradient. Batches far below
    B gain from more examples as from more steps, those far above it hardly gain. The ratio is
    noisy: average numerators and denominators (`gradient_moments`) rather than ratios.

    Args:
      grads: a tree whose leaves have a leading axis of N, of at least 2: gradients of examples,
        micro-batches or workers.
      batch_size: b, examples in each of them.

    Returns:
      A scalar, in examples, whatever the size of the gradients; infinite where the estimate of the
      squared gradient is not positive.

    Raises:
      ValueError: for leading axes that differ, or are below 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import gradient_noise
      >>> float(gradient_noise(jnp.array([[1.0], [3.0]]), batch_size=16))     # 16 * 2 / (4 - 1)
      10.666666984558105

    References:
      McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training
      (arXiv 1812.06162), the simple noise scale; its appendix A.1 has the same estimates from two
      batch sizes, of which ours are b and N b.
    """
    check_real("gradient_noise", "grads", grads)
    mean, trace, count = gradient_moments(in_unit(grads))
    signal = dot(mean, mean) - trace / count
    positive = signal > 0
    return jnp.where(positive, batch_size * trace / jnp.where(positive, signal, 1), jnp.inf)

"""Laws that give a schedule its peak: from model and data size, from the batch size."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..registry import schedule
from .arguments import check, check_choice
from .steps import Numeric

RULES = {"linear": 1.0, "sqrt": 0.5}


class StepLaw(NamedTuple):
    """What `step_law` predicts.

    Attributes:
      learning_rate: the peak rate.
      batch_size_tokens: tokens per optimizer step.
    """

    learning_rate: Numeric
    batch_size_tokens: Numeric


@schedule(
    "Li et al. 2025, Predictable Scale: Part I, Step Law -- Optimal Hyperparameter Scaling Law in "
    "Large Language Model Pretraining",
    arxiv="2503.04715",
    kind="law",
)
def step_law(
    n_params: Numeric,
    n_tokens: Numeric,
    lr_coefficient: Numeric = 1.79,
    lr_params_exponent: Numeric = -0.713,
    lr_tokens_exponent: Numeric = 0.307,
    batch_coefficient: Numeric = 0.58,
    batch_tokens_exponent: Numeric = 0.571,
) -> StepLaw:
    r"""The peak rate and the batch size for pre-training a language model with AdamW.

    .. math::
        \eta = 1.79\, N^{-0.713} D^{0.307}, \qquad B = 0.58\, D^{0.571}

    It holds for a warm-up and a cosine to the fixed rate 1e-5, not to a fraction of the peak; not
    for other optimizers, nor for maximal-update parametrisations.

    Args:
      n_params: number N of parameters without embeddings (all experts of a mixture).
      n_tokens: number D of training tokens.
      lr_coefficient: coefficient of the rate. The full-precision constants of the official fit
        are 1.79734, -0.7129222911869909, 0.30749095041206964, 0.580688 and 0.5709443646895052.
      lr_params_exponent: exponent of N in the rate.
      lr_tokens_exponent: exponent of D in the rate.
      batch_coefficient: coefficient of the batch size.
      batch_tokens_exponent: exponent of D in the batch size.

    Returns:
      The rate and the batch size in tokens per optimizer step, see `batch_in_sequences`.

    Raises:
      ValueError: for counts that are not positive.

    Example:
      >>> law = step_law(n_params=7e9, n_tokens=1.4e12)
      >>> f"{law.learning_rate:.2e} {law.batch_size_tokens:.2e}"
      '9.17e-04 5.00e+06'

    References:
      Li et al. 2025, Predictable Scale: Part I, Step Law, https://arxiv.org/abs/2503.04715. The
      defaults are the rounded constants of the paper.
    """
    check("n_params", n_params, open_low=True)
    check("n_tokens", n_tokens, open_low=True)
    for name, value in (
        ("lr_coefficient", lr_coefficient),
        ("lr_params_exponent", lr_params_exponent),
        ("lr_tokens_exponent", lr_tokens_exponent),
        ("batch_coefficient", batch_coefficient),
        ("batch_tokens_exponent", batch_tokens_exponent),
    ):
        check(name, value, -math.inf, open_low=True)
    return StepLaw(
        lr_coefficient * n_params**lr_params_exponent * n_tokens**lr_tokens_exponent,
        batch_coefficient * n_tokens**batch_tokens_exponent,
    )


@schedule(
    "Li et al. 2025, Predictable Scale: Part I, Step Law -- Optimal Hyperparameter Scaling Law in "
    "Large Language Model Pretraining",
    arxiv="2503.04715",
    kind="law",
)
def batch_in_sequences(batch_size_tokens: Numeric, seq_len: Numeric) -> Numeric:
    """A batch size in sequences, not rounded.

    Args:
      batch_size_tokens: batch size in tokens.
      seq_len: tokens per sequence.

    Returns:
      `batch_size_tokens / seq_len`.

    Raises:
      ValueError: for values that are not positive.

    Example:
      >>> batch_in_sequences(step_law(7e9, 1.4e12).batch_size_tokens, seq_len=4096) // 1
      1220.0
    """
    check("batch_size_tokens", batch_size_tokens, open_low=True)
    check("seq_len", seq_len, open_low=True)
    return batch_size_tokens / seq_len


@schedule(
    "Granziol, Zohren & Roberts 2022, Learning Rates as a Function of Batch Size: A Random Matrix "
    "Theory Approach to Neural Network Training",
    arxiv="2006.09092",
    kind="law",
)
def scale_learning_rate(
    learning_rate: Numeric,
    batch_size: Numeric,
    reference_batch_size: Numeric,
    rule: str | float = "linear",
    max_learning_rate: Numeric | None = None,
) -> Numeric:
    r"""The learning rate for another batch size.

    .. math::
        \eta(B) = \min\bigl(\eta_0\,(B / B_0)^{a},\ \eta_{max}\bigr)

    The exponent follows the optimizer: 1 for SGD, with or without momentum, 1/2 for Adam and for
    other methods that divide by the root of a second moment, or that take the sign.

    Args:
      learning_rate: rate eta_0 tuned at the reference batch size.
      batch_size: number B of examples that the gradient averages over.
      reference_batch_size: batch size B_0.
      rule: "linear" (a = 1), "sqrt" (a = 1/2), or the exponent a.
      max_learning_rate: the cap; both rules overestimate beyond the critical batch size.

    Returns:
      The scaled rate.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> scale_learning_rate(0.1, batch_size=512, reference_batch_size=128)
      0.4
      >>> scale_learning_rate(0.1, batch_size=512, reference_batch_size=128, rule="sqrt")
      0.2

    References:
      Granziol, Zohren & Roberts 2022, Learning Rates as a Function of Batch Size: A Random Matrix
      Theory Approach to Neural Network Training, https://arxiv.org/abs/2006.09092. There is no
      published code.
    """
    check("learning_rate", learning_rate)
    check("batch_size", batch_size, open_low=True)
    check("reference_batch_size", reference_batch_size, open_low=True)
    if isinstance(rule, str):
        check_choice("rule", rule, RULES)
    exponent = RULES[rule] if isinstance(rule, str) else rule
    check("rule", exponent, -math.inf, open_low=True)
    scaled = learning_rate * (batch_size / reference_batch_size) ** exponent
    if max_learning_rate is None:
        return scaled
    check("max_learning_rate", max_learning_rate)
    return jnp.minimum(scaled, max_learning_rate)


@schedule(
    "Granziol, Zohren & Roberts 2022, Learning Rates as a Function of Batch Size: A Random Matrix "
    "Theory Approach to Neural Network Training",
    arxiv="2006.09092",
    kind="law",
)
def batch_hessian_max_eigenvalue(
    max_eigenvalue: Numeric, batch_size: Numeric, noise_std: Numeric
) -> jax.Array:
    r"""The largest eigenvalue of the Hessian of a batch, from that of the full loss.

    .. math::
        \lambda_B = \lambda + \frac{s^2}{B \lambda} \quad (\lambda > s/\sqrt B), \qquad
        \lambda_B = \frac{2 s}{\sqrt B} \quad \text{otherwise}

    The second is the edge of the bulk of the noise, in which a small eigenvalue drowns.

    Args:
      max_eigenvalue: largest eigenvalue lambda of the full Hessian.
      batch_size: number B of examples.
      noise_std: s, the root of the number of parameters times the deviation of one entry's noise.

    Returns:
      The eigenvalue of the batch Hessian.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> [round(float(batch_hessian_max_eigenvalue(2.0, b, noise_std=4.0)), 3) for b in (1, 4, 64)]
      [8.0, 4.0, 2.125]

    References:
      Granziol, Zohren & Roberts 2022, https://arxiv.org/abs/2006.09092, additive noise.
    """
    check("max_eigenvalue", max_eigenvalue)
    check("batch_size", batch_size, open_low=True)
    check("noise_std", noise_std)
    noise = noise_std / jnp.sqrt(batch_size)
    outlier = max_eigenvalue > noise
    safe = jnp.where(outlier, max_eigenvalue, 1.0)
    return jnp.where(outlier, safe + noise**2 / safe, 2 * noise)


@schedule(
    "Granziol, Zohren & Roberts 2022, Learning Rates as a Function of Batch Size: A Random Matrix "
    "Theory Approach to Neural Network Training",
    arxiv="2006.09092",
    kind="law",
)
def max_learning_rate(
    max_eigenvalue: Numeric, batch_size: Numeric, noise_std: Numeric
) -> jax.Array:
    """The largest stable rate of gradient descent on batches, `2 / lambda_B`.

    It grows with the batch size while noise dominates, and saturates at `2 / lambda`.

    Args:
      max_eigenvalue: see `batch_hessian_max_eigenvalue`.
      batch_size: see there.
      noise_std: see there.

    Returns:
      The rate.

    Raises:
      ValueError: for values out of range.

    Example:
      >>> [round(float(max_learning_rate(2.0, b, noise_std=4.0)), 3) for b in (1, 4, 64)]
      [0.25, 0.5, 0.941]

    References:
      Granziol, Zohren & Roberts 2022, https://arxiv.org/abs/2006.09092.
    """
    return 2 / batch_hessian_max_eigenvalue(max_eigenvalue, batch_size, noise_std)

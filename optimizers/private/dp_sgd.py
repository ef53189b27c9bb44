"""DP-SGD, and its first stage for any optimizer."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Hyperparameter,
    Key,
    Mask,
    NonNegative,
    Positive,
    Sampler,
    Signal,
    chain,
    decay_weights,
    draw_like,
    flow,
    handed_on,
    scale_by_learning_rate,
    scheduled,
    transformation,
)
from ...transforms import momentum as momentum_in_form
from ...transforms.workers import total_over
from .examples import clipped_sum, number_of_examples


@transformation()
def add_private_noise(
    l2_norm_clip: Positive,
    noise_multiplier: NonNegative,
    batch_size: Positive,
    key: Key = 0,
    noise_fn: Sampler | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""From a sum of clipped gradients to their mean with noise.

    .. math::
        d = \frac 1 B \Bigl(\sum_i s_i g_i + \sigma C \xi\Bigr), \qquad \xi \sim N(0, I)

    It follows `clipped_gradient_sum` and stands in front of any optimizer.

    Args:
      l2_norm_clip: C, what the gradients were clipped to.
      noise_multiplier: sigma.
      batch_size: B, the number of examples; of Poisson samples the expected one.
      key: seed or key of the noise; workers along an axis need the same.
      noise_fn: `(key, count, params) -> tree` of standard normals in place of the draw; count is 0
        at the first step.
      axis_name: the axis along which workers lie whose sums are added first; None: there is one.

    Returns:
      The transformation; its state is a key and a counter.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import add_private_noise
      >>> tx = add_private_noise(1.0, 0.5, batch_size=4, noise_fn=lambda key, count, params: params)
      >>> total, x = jnp.array([6.0]), jnp.array([2.0])
      >>> tx.update(total, tx.init(x), x)[0].tolist()
      [1.75]
    """

    def step(total: Signal) -> Signal:
        summed = total_over(total, axis_name)
        return noisy(summed, l2_norm_clip, noise_multiplier, key, noise_fn) / batch_size

    return flow(step)


@transformation()
def differentially_private_aggregate(
    l2_norm_clip: Positive,
    noise_multiplier: NonNegative,
    key: Key = 0,
    noise_fn: Sampler | None = None,
    batch_size: Positive | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""The mean of the gradients of single examples, each clipped, with noise.

    With B gradients of single examples stacked on a leading axis of every leaf:

    .. math::
        s_i = \frac 1 {\max(\|g_i\| / C, 1)}, \qquad
        d = \frac 1 B \Bigl(\sum_i s_i g_i + \sigma C \xi\Bigr), \qquad \xi \sim N(0, I)

    with the norm over all leaves, and a fresh draw at every step and leaf, in at least float32. It
    stands in front of any optimizer, which sees nothing else of the examples. An example whose
    gradient is not finite counts as one of zeros.

    Args:
      l2_norm_clip: C, the largest norm of an example's gradient.
      noise_multiplier: sigma.
      key: seed or key of the noise; workers along an axis need the same.
      noise_fn: `(key, count, params) -> tree` of standard normals in place of the draw; count is 0
        at the first step.
      batch_size: B; default the number of gradients that come, of all workers together. For Poisson
        samples it has to be the expected number; examples that are not there come as zeros.
      axis_name: the axis along which the workers lie, each with gradients of its own examples; the
        noise is added once. None: there is one.

    References:
      Abadi et al. 2016, Deep Learning with Differential Privacy (arXiv 1607.00133), as in
      `optax.contrib.dpsgd`. Opacus divides by n_i + 1e-6 in place of n_i.
    """

    def step(g: Signal) -> Signal:
        summed = total_over(clipped_sum(g, scheduled(l2_norm_clip)), axis_name)
        count = number_of_examples(g, axis_name) if batch_size is None else batch_size
        return noisy(summed, l2_norm_clip, noise_multiplier, key, noise_fn) / count

    return flow(step)


def noisy(
    total: Signal,
    clip: Hyperparameter,
    noise_multiplier: Hyperparameter,
    key: Key,
    noise_fn: Sampler | None,
) -> Signal:
    """A sum with Gaussian noise in proportion to what one example can change of it."""
    xi = draw_like(total, key, sampler=noise_fn)
    return total + scheduled(noise_multiplier) * scheduled(clip) * xi


@method(
    "Abadi et al. 2016, Deep Learning with Differential Privacy",
    arxiv="1607.00133",
    tags=("private", "noise", "bounded", "momentum", "nesterov"),
    kind="per_example",
    learning_rate=0.1,
    required={"l2_norm_clip": 1.0, "noise_multiplier": 1.0},
)
@transformation()
def dp_sgd(
    learning_rate: optax.ScalarOrSchedule,
    l2_norm_clip: Positive,
    noise_multiplier: NonNegative,
    momentum: Decay = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    noise_fn: Sampler | None = None,
    batch_size: Positive | None = None,
    axis_name: str | None = None,
) -> Flow:
    """DP-SGD: the rule of `differentially_private_aggregate`, behind it SGD with momentum.

    Its gradients are those of single examples, stacked: `jax.vmap(jax.grad(loss), (None, 0))`. What
    budget a run spends is computed from noise, batch size and steps by an accountant, such as the
    package dp-accounting.

    Args:
      learning_rate: number or schedule, outside the momentum.
      l2_norm_clip, noise_multiplier, key, noise_fn, batch_size, axis_name: see
        `differentially_private_aggregate`.
      momentum: decay of the heavy ball, in [0, 1).
      nesterov: look one step ahead along the momentum.
      weight_decay: added behind the noise, times the params.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is a key and the momentum.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked,
        or an axis that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import dp_sgd
      >>> opt, w = dp_sgd(1.0, l2_norm_clip=1.0, noise_multiplier=0.0), jnp.zeros(2)
      >>> examples = jnp.array([[0.0, 0.5], [3.0, 4.0]])
      >>> [round(float(x), 3) for x in opt.update(examples, opt.init(w), w)[0]]
      [-0.3, -0.65]

    References:
      Abadi et al. 2016 (arXiv 1607.00133), as in `optax.contrib.dpsgd`.
    """
    return chain(
        handed_on(differentially_private_aggregate),
        decay_weights(weight_decay, mask=mask),
        momentum_in_form(momentum, "heavy_ball", nesterov),
        scale_by_learning_rate(learning_rate),
    )

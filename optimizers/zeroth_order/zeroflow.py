"""ZeroFlow: continual learning with forward passes."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Fraction,
    Key,
    Positive,
    Sampler,
    Signal,
    chain,
    ema,
    flow,
    merge,
    named,
    scale_by_learning_rate,
    split,
    transformation,
)
from ...transforms.control.masked import Labels
from ...transforms.notation import is_neutral
from ...transforms.zeroth_order import sparse_directions, spsa_gradient
from .zo_hybrid import with_label


@method(
    "Feng et al. 2025, ZeroFlow: Overcoming Catastrophic Forgetting is Easier than You Think",
    arxiv="2501.01045",
    tags=("closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def zeroflow(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    history: Decay = 0.0,
    sparsity: Fraction = 0.0,
    labels: Labels | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """ZO-SGD with the three enhancements of the benchmark: history, sparsity, hybrid.

        g_t = c_t z_t,   z masked at random if sparsity > 0
        d_1 = g_1,   d_t = (1 - history) g_t + history d_{t-1}
        theta_t = theta_{t-1} - lr d_t

    Start from a fresh state at a new task, unless d is to be carried over.

    Args:
      learning_rate: lr; number or schedule.
      perturbation_scale, key, sampler: see `spsa_gradient`.
      history: weight of the past direction, in [0, 1); 0 keeps none.
      sparsity: probability that an entry is neither perturbed nor moved.
      labels: a tree of "zo" and "fo" (or a prefix, or a function of the params): the leaves "fo"
        take their given gradient for g; default: all are "zo".
      mu_dtype: storage of d; default at least float32.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`. Its state is a counter and a key, and
      d with history.

    Raises:
      ValueError: for a hyper-parameter out of range or a missing input.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zeroflow, zo_sgd
      >>> loss, x = lambda x: jnp.sum(x**2), jnp.array([1.0, -2.0])
      >>> a, b = zeroflow(0.1, history=0.5), zo_sgd(0.1)
      >>> u, _ = a.update(None, a.init(x), x, value_fn=loss)
      >>> v, _ = b.update(None, b.init(x), x, value_fn=loss)
      >>> u.tolist() == v.tolist()
      True

    References:
      Feng et al. 2025 (arXiv 2501.01045). No official code was found: the term of history is
      written from the paper's description.
    """
    drawn = sampler if is_neutral(sparsity) else sparse_directions(sampler, sparsity)
    estimator = spsa_gradient(perturbation_scale, key=key, sampler=drawn)

    def estimate(g: Signal) -> Signal:
        if labels is None:
            return g >> estimator
        unknown, given = split(g, with_label(labels, "zo"))
        return merge(unknown >> estimator, given)

    return chain(
        flow(estimate),
        *(() if is_neutral(history) else (named("mu", ema(history, from_first=True)),)),
        scale_by_learning_rate(learning_rate),
    )

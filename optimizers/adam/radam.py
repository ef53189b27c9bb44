"""RAdam."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Positive,
    Signal,
    chain,
    debiased_root,
    divide,
    ema,
    flow,
    momentum,
    scale_by_learning_rate,
    square,
    transformation,
    where,
)
from ...transforms.accumulate import radam_rectification


@transformation()
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Positive = 5.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam that goes by its momentum alone until its second moment rests on enough gradients.

    With the averages m_t, v_t of `scale_by_adam` and n_t, r_t of
    `transforms.accumulate.radam_rectification(b2)`:

        n_t >= threshold:  u_t = r_t m_t / (1 - b1^t) / (sqrt(v_t / (1 - b2^t) + eps_root) + eps)
        n_t < threshold:   u_t = m_t / (1 - b1^t)

    Args:
      b1: decay of the momentum, in [0, 1); exactly 0 keeps none.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      eps_root: added under the root.
      threshold: the length n_t from which on v is trusted; above 4.
      mu_dtype: storage dtype of m; default at least float32.
      nesterov: look ahead along the momentum; see `scale_by_adam`.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond (arXiv 1908.03265),
      which trusts v where n_t > 4; the authors' code and Optax, whose arguments these are, from 5
      on.
    """

    def step(g: Signal) -> Signal:
        m = g >> momentum(b1, "debiased", nesterov, dtype=mu_dtype, name="mu")
        v = square(g) >> ema(b2, name="nu")
        length, factor = radam_rectification(b2)
        return where(
            length >= threshold, factor * divide(m, debiased_root(v, b2, eps, eps_root), eps), m
        )

    return flow(step)


@method(
    "Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond",
    arxiv="1908.03265",
    tags=("adam", "early-phase"),
    learning_rate=0.01,
)
@transformation()
def radam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Positive = 5.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> Flow:
    """RAdam, with the arguments of `optax.radam`; the rule is that of `scale_by_radam`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, eps_root, threshold, mu_dtype, nesterov: see `scale_by_radam`.
      nu_dtype: see `scale_by_radam`.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import radam
      >>> opt = radam(0.5)
      >>> g = jnp.array([3.0, -2.0])
      >>> [f"{u:.3f}" for u in opt.update(g, opt.init(g))[0]]
      ['-1.500', '1.000']
    """
    return chain(
        scale_by_radam(
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            threshold=threshold,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
        ),
        scale_by_learning_rate(learning_rate),
    )

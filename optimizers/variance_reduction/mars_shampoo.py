"""MARS-Shampoo."""

import jax
import optax

from ...registry import method
from ...transforms import (
    Axis,
    Decay,
    DType,
    Flow,
    Length,
    Mask,
    NonNegative,
    Number,
    Signal,
    ema,
    flow,
    handed_on,
    lift,
    named,
    scale_by_adam,
    scheduled,
    transformation,
)
from ...transforms.kronecker import newton_schulz, stack_same_shapes, unstack
from .mars import descend, for_matrices, mars


@transformation()
def scale_by_mars_shampoo(
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    gamma: Number = 0.025,
    exact: bool = False,
    ns_steps: Length = 5,
    ns_dtype: DType | None = None,
    optimize_1d: bool = False,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    output_axis: Axis = 0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Orthogonalised momentum of variance-reduced gradients; Adam on leaves that are not matrices.

        c_t = g_t + gamma b1 / (1 - b1) (g_t - p_t),   clipped to norm 1 leaf by leaf
        m_t = b1 m_{t-1} + (1 - b1) c_t
        u_t = sqrt(max(1, outputs / inputs)) NewtonSchulz(m_t / (1 - b1))

    with p_t the gradient before, zero at first. Leaves that are not matrices get the Adam direction
    of g_t with b1_1d, b2_1d, eps; with `optimize_1d`, that of c_t with b1, b2, eps.

    Args:
      b1: decay of the momentum, in [0, 1); also weighs the correction.
      b2: decay of the second moment of other leaves with `optimize_1d`.
      eps: added to the Frobenius norm before the iteration, and to Adam's root.
      gamma: strength of the correction.
      exact: p_t is the extra input `previous_grads`, the gradient of this batch at the previous
        params.
      ns_steps: Newton-Schulz iterations; singular values end up in about (0.7, 1.2).
      ns_dtype: in which they run; default that of the moments (the authors': bfloat16).
      optimize_1d: correct the other leaves, too.
      b1_1d, b2_1d: decays for other leaves.
      output_axis: 0 if matrices are (outputs, inputs), as the authors' are; 1 for Flax kernels.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models
      (arXiv 2411.10438). The paper takes U V^T from an SVD; we follow the authors' code, in which
      alone the factor in front is found.
    """

    def aspect(matrix: jax.Array) -> jax.Array:
        ratio = matrix.shape[output_axis] / max(matrix.shape[-1 - output_axis], 1)
        return matrix * max(1.0, ratio) ** 0.5

    def step(c: Signal) -> Signal:
        m = c >> named("mu", ema(b1))
        n = m / (1 - scheduled(b1))
        stacks = stack_same_shapes(n, spread=True)
        orthogonal = unstack(newton_schulz(stacks, ns_steps, eps=eps, dtype=ns_dtype), n)
        return lift(aspect, "aspect_ratio")(orthogonal)

    corrected = mars(flow(step), gamma, b1, exact)
    adam = mars(handed_on(scale_by_adam), gamma, b1, exact)
    return for_matrices(corrected, b1_1d, b2_1d, eps, optimize_1d, adam)


@method(
    "Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models",
    arxiv="2411.10438",
    tags=("tracked-mean", "matrix", "orthogonal", "decoupled-decay"),
    learning_rate=3e-3,
)
@transformation()
def mars_shampoo(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    gamma: Number = 0.025,
    exact: bool = False,
    ns_steps: Length = 5,
    ns_dtype: DType | None = None,
    optimize_1d: bool = False,
    learning_rate_1d: optax.ScalarOrSchedule = 3e-3,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    weight_decay_1d: NonNegative = 0.1,
    mask: Mask | None = None,
    *,
    output_axis: Axis = 0,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """MARS-Shampoo; the rule is that of `scale_by_mars_shampoo`.

    Args:
      learning_rate: for matrices; number or schedule.
      b1, b2, eps, gamma, exact, ns_steps, ns_dtype, optimize_1d, b1_1d, b2_1d, output_axis: see
        `scale_by_mars_shampoo`.
      weight_decay: decoupled decay of matrices, multiplied by their rate.
      learning_rate_1d, weight_decay_1d: for other leaves; see `mars_adamw`.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_mars_shampoo`.

    Returns:
      The optimizer; it needs `params`. Its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mars_shampoo
      >>> opt = mars_shampoo(1.0, ns_steps=0)
      >>> params = jnp.array([[3.0, -4.0]])
      >>> [f"{u:.2f}" for u in opt.update(params, opt.init(params), params)[0][0]]
      ['-0.60', '0.80']
    """
    direction = handed_on(scale_by_mars_shampoo)
    return descend(
        direction,
        learning_rate,
        weight_decay,
        optimize_1d,
        learning_rate_1d,
        weight_decay_1d,
        mask,
    )

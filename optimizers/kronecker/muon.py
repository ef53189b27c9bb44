"""Muon."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    Signal,
    Size,
    chain,
    decay_weights,
    flow,
    leaf_size,
    leaf_sum,
    matrices,
    maximum,
    merge,
    momentum,
    named,
    newton_schulz,
    scale_by_adam,
    scale_by_learning_rate,
    split,
    sqrt,
    transformation,
)
from ...transforms.kronecker import (
    QUINTIC,
    Coefficients,
    Preconditioning,
    stack_same_shapes,
    unstack,
)
from .matrix_views import DimensionNumbers, are_matrices, as_matrices, from_matrices


@transformation()
def scale_by_muon(
    ns_coeffs: Coefficients = QUINTIC,
    ns_steps: Size = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
) -> Flow:
    """The momentum of a matrix with all of its singular values brought near 1.

        m_t = beta m_{t-1} + (1 - beta) g_t
        n_t = m_t / (1 - beta^t),   or  beta m_t / (1 - beta^(t+1)) + (1 - beta) g_t / (1 - beta^t)
        u_t = NewtonSchulz(n_t),    times <n_t, u_t> if adaptive

    which is nearly U V^T of the singular value decomposition n_t = U S V^T. All leaves must be
    matrices. Those of one shape are kept, and orthogonalised, as one stack.

    Args:
      ns_coeffs: coefficients of the iteration: three numbers, a sequence of three numbers each, or
        "standard" or "dion"; see `transforms.newton_schulz`.
      ns_steps: iterations, where the coefficients do not say.
      beta: decay of the momentum, in [0, 1).
      eps: added to the norm by which the iteration starts.
      mu_dtype: storage dtype of m; default at least float32.
      nesterov: look one step ahead along the momentum.
      adaptive: scale u by its product with n, the nuclear norm of n.
      preconditioning: "frobenius", "spectral", "aol" or "schatten": by what n is divided at first.

    References:
      Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks; the arguments are
      those of `optax.contrib.scale_by_muon`. Jordan's code neither averages nor debiases m, which
      changes nothing but what eps amounts to.
    """

    def step(g: Signal) -> Signal:
        ahead = momentum(beta, "debiased", nesterov, dtype=mu_dtype, name="mu")
        n = stack_same_shapes(g, spread=True) >> ahead
        u = newton_schulz(n, ns_steps, ns_coeffs, eps, preconditioning=preconditioning)
        u = leaf_sum(n * u, axis=(-2, -1), keepdims=True) * u if adaptive else u
        return unstack(u, g)

    return flow(step)


@transformation()
def scale_by_shape(consistent_rms: Positive | None = None) -> Flow:
    """Matrices times a factor of their shape, so that rates carry over between widths.

        sqrt(max(1, outputs / inputs)) u          or, with consistent_rms,
        consistent_rms sqrt(max(inputs, outputs)) u

    for kernels with inputs on the first axis and outputs on the last, as Flax has them.

    Args:
      consistent_rms: the root mean square that an orthogonal matrix then has; 0.2 is that of Adam.

    References:
      Jordan et al. 2024, Muon. Liu et al. 2025, Muon is Scalable for LLM Training (arXiv
      2502.16982).
    """

    def step(u: Signal) -> Signal:
        inputs, outputs = leaf_size(u, axis=-2), leaf_size(u, axis=-1)
        if consistent_rms is None:
            return sqrt(maximum(1.0, outputs / inputs)) * u
        return consistent_rms * sqrt(maximum(inputs, outputs)) * u

    return flow(step)


@method(
    "Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks",
    tags=("matrix", "orthogonal", "momentum", "nesterov", "partitioned"),
    learning_rate=0.02,
)
@transformation(synonyms={"mask": "weight_decay_mask"})
def muon(
    learning_rate: optax.ScalarOrSchedule,
    ns_coeffs: Coefficients = QUINTIC,
    ns_steps: Size = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Mask | None = None,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: DimensionNumbers = None,
    consistent_rms: Positive | None = None,
    orthogonalize: Mask = matrices,
    nu_dtype: DType | None = None,
) -> Flow:
    """Muon for matrices, AdamW for other leaves, as `optax.contrib.muon`.

        x_t = x_{t-1} - r (s u_t + weight_decay x_{t-1})

    with u_t of `scale_by_muon` and s of `scale_by_shape`.

    Args:
      learning_rate: r, number or schedule.
      ns_coeffs, ns_steps, beta, eps, mu_dtype, adaptive, preconditioning: see `scale_by_muon`.
      weight_decay: of the matrices; decoupled, multiplied by the rate.
      weight_decay_mask: matrices that decay; default all.
      nesterov: look one step ahead along the momenta, Adam's too.
      adam_b1, adam_b2, adam_eps_root: for other leaves, see `scale_by_adam`; eps is as above.
      adam_weight_decay: of other leaves.
      adam_learning_rate: for other leaves; default `learning_rate`.
      muon_weight_dimension_numbers: which axes of a tensor are a matrix's inputs and outputs, all
        others being a batch of matrices: a tree like the params, a prefix of it, or a function from
        the params to one, with `optax.contrib.MuonDimensionNumbers` at the leaves that are
        orthogonalised and None at the others. It takes the place of `orthogonalize`.
      orthogonalize: the leaves that are orthogonalised, all of them matrices; default every matrix.
        Embeddings and output layers are often left to Adam.
      consistent_rms: see `scale_by_shape`.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; its state is the size of the matrices and twice that of other leaves.

    Raises:
      ValueError: for a hyper-parameter out of range, or coefficients that are none.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import muon
      >>> opt = muon(1.0, ns_coeffs=((1.5, -0.5, 0.0),) * 12)
      >>> g = {"w": jnp.array([[0.0, 5.0], [2.0, 0.0]]), "b": jnp.array([3.0])}
      >>> updates, _ = opt.update(g, opt.init(g), g)
      >>> [f"{u:.2f}" for u in jnp.abs(updates["w"]).ravel()]
      ['0.00', '1.00', '1.00', '0.00']

    References:
      Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks.
    """
    numbers = muon_weight_dimension_numbers
    orthogonal = chain(
        scale_by_muon(
            ns_coeffs=ns_coeffs,
            ns_steps=ns_steps,
            beta=beta,
            eps=eps,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
        ),
        scale_by_shape(consistent_rms=consistent_rms),
    )

    def direction(g: Signal) -> Signal:
        if numbers is None:
            return g >> orthogonal
        return from_matrices(as_matrices(g, numbers) >> orthogonal, g, numbers)

    hidden = chain(
        flow(direction),
        decay_weights(weight_decay, mask=weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    adam = chain(
        scale_by_adam(
            b1=adam_b1,
            b2=adam_b2,
            eps=eps,
            eps_root=adam_eps_root,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
        ),
        decay_weights(adam_weight_decay),
        scale_by_learning_rate(learning_rate if adam_learning_rate is None else adam_learning_rate),
    )

    def step(g: Signal) -> Signal:
        chosen, others = split(g, orthogonalize if numbers is None else are_matrices(numbers))
        return merge(chosen >> named("muon", hidden), others >> named("adam", adam))

    return flow(step)

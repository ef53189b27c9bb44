"""SOAP."""

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Period,
    Signal,
    Size,
    chain,
    debias,
    debiased_root,
    decay_weights,
    delay,
    divide,
    eigenvectors,
    ema,
    every,
    flow,
    lift,
    maximum,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    step_count,
    transformation,
    where,
)
from ...transforms.kronecker import kronecker_factors, mode_products, stack_same_shapes, unstack
from ...transforms.notation.roots import maximum_over


@transformation()
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    update_interval: Period = 10,
    max_dim: Size = 10000,
    precondition_1d: bool = False,
    bias_correction: bool = True,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam in the eigenbasis of Shampoo's factors.

    For a matrix G, with L, R and Q_L, Q_R of the gradients before this one:

        G' = Q_L^T G Q_R,    M <- b1 M + (1 - b1) G,    M' = Q_L^T M Q_R
        V <- b2 V + (1 - b2) G'^2
        U = Q_L [c M' / (sqrt(V) + eps)] Q_R^T,    c = sqrt(1 - b2^n) / (1 - b1^n)
        L <- b L + (1 - b) G G^T,    R <- b R + (1 - b) G^T G,    b = shampoo_beta
        Q_L, Q_R <- eigenvectors of L, R, each `update_interval` steps

    A tensor has one factor per dimension. The first gradient only gives the basis, from which there
    is no step; n counts those after it. The basis is tracked: see `transforms.eigenvectors`. Leaves
    of one shape are kept, and decomposed, as one stack. A divisor below the rounding of the largest
    one of its matrix is that rounding: in the null space of the factors G' is nothing else, and
    over a still smaller root it would throw the params as far as the gradient is large.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of the factors, in [0, 1); default b2.
      eps: added to the root, before bias correction.
      update_interval: steps between two updates of the basis.
      max_dim: dimensions larger than that are not turned.
      precondition_1d: vectors have a factor, too; otherwise, as scalars, they get Adam's steps.
      bias_correction: False leaves c out.
      mu_dtype: storage dtype of M; default at least float32.
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Vyas et al. 2024, SOAP: Improving and Stabilizing Shampoo using Adam (arXiv 2409.11321), and
      the authors' code as packaged in pytorch_optimizer. There the columns of a basis change places
      at an update, and with them the entries of V; here both stay, which gives the same steps.
    """
    factor_decay = b2 if shampoo_beta is None else shampoo_beta

    def step(g: Signal) -> Signal:
        x = stack_same_shapes(g)
        fresh = kronecker_factors(x, max_dim, least_order=1 if precondition_1d else 2)
        factors = delay(fresh, name="mean_factors")
        Q = factors >> every(update_interval, eigenvectors(), phase=2, start=2, name="basis")
        factors << factor_decay * factors + (1 - scheduled(factor_decay)) * fresh

        first = step_count() == 1
        m = mode_products(
            where(first, 0.0, x) >> ema(b1, dtype=mu_dtype, name="mu"), Q, transposed=True
        )
        v = where(first, 0.0, square(mode_products(x, Q, transposed=True))) >> ema(b2, name="nu")
        n = maximum(step_count() - 1, 1)

        def divisor(v: Signal) -> Signal:
            if not bias_correction:
                return sqrt(v) + eps
            return debiased_root(v, b2, eps, count=n, eps_before_correction=True)

        root = _at_least_rounding(divisor(v), divisor(_largest(v)))
        m = m >> debias(b1, n) if bias_correction else m
        return unstack(mode_products(divide(m, root, eps), Q), g)

    return flow(step)


@lift
def _largest(v: jax.Array) -> jax.Array:
    """Of each matrix."""
    return maximum_over(v, tuple(range(1, v.ndim)), keepdims=True)


@lift
def _at_least_rounding(root: jax.Array, largest: jax.Array) -> jax.Array:
    """No entry is below the rounding of the largest one of its matrix."""
    return jnp.maximum(root, jnp.finfo(root.dtype).eps * largest)


@method(
    "Vyas et al. 2024, SOAP: Improving and Stabilizing Shampoo using Adam",
    arxiv="2409.11321",
    tags=("matrix", "kronecker", "adam", "decoupled-decay"),
    learning_rate=3e-3,
)
@transformation()
def soap(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-2,
    update_interval: Period = 10,
    max_dim: Size = 10000,
    precondition_1d: bool = False,
    bias_correction: bool = True,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """SOAP with decoupled weight decay; the rule is that of `scale_by_soap`.

    Args:
      learning_rate: number or schedule.
      b1, b2, shampoo_beta, eps, update_interval, max_dim, precondition_1d, bias_correction,
        mu_dtype: see `scale_by_soap`.
      weight_decay: decay of the params after the step, multiplied by the rate; from the second step
        on, as there is no first.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: see `scale_by_soap`.

    Returns:
      The optimizer; it needs `params`. Its state is twice the size of the params, and two square
      matrices for every dimension that is turned.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import soap
      >>> opt = soap(1.0, weight_decay=0.0)
      >>> g = jnp.array([[0.0, 3.0], [4.0, 0.0]])
      >>> _, state = opt.update(g, opt.init(g), g)
      >>> print(opt.update(g, state, g)[0].round(2) + 0.0)
      [[ 0. -1.]
       [-1.  0.]]

    References:
      Vyas et al. 2024, SOAP: Improving and Stabilizing Shampoo using Adam (arXiv 2409.11321).
    """
    return chain(
        scale_by_soap(
            b1=b1,
            b2=b2,
            shampoo_beta=shampoo_beta,
            eps=eps,
            update_interval=update_interval,
            max_dim=max_dim,
            precondition_1d=precondition_1d,
            bias_correction=bias_correction,
            mu_dtype=mu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask, start=1),
    )

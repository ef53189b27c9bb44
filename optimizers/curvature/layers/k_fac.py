"""K-FAC."""

from math import inf

import jax.numpy as jnp
import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Hyperparameter,
    Length,
    Mask,
    NonNegative,
    Period,
    Signal,
    chain,
    decay_weights,
    every,
    flow,
    handed_on,
    lift,
    named,
    pair,
    scale_by_learning_rate,
    trace,
    transformation,
    where,
    zeros_like,
)
from ....transforms.kronecker import (
    Layers,
    damped,
    eigenbasis,
    factor_average,
    finite_or,
    finite_or_plain,
    join_layers,
    layer_matrices,
    layer_rows,
    mean_loss_moment,
    per_layer,
    positive_inverse,
    second_moment,
)
from ....transforms.kronecker.per_layer import PerLayer

SMALLEST_EIGENVALUE = 1e-10


@transformation()
def scale_by_k_fac(
    stat_decay: Decay = 0.95,
    damping: NonNegative = 1e-3,
    update_interval: Period = 10,
    inverse_interval: Period | None = None,
    eigen: bool = False,
    damping_a: PerLayer | None = None,
    damping_b: PerLayer | None = None,
    layers: Layers = None,
) -> Flow:
    r"""The gradient of every layer times the inverse of its Kronecker-factored Fisher block.

    With A the layer's inputs (N, in), ones appended where it has a bias, D the gradient of the
    mean loss with respect to its outputs (N, out), and G = [dW; db]:

    $$S_A \leftarrow \rho S_A + (1 - \rho) A^T A / N, \qquad
      S_G \leftarrow \rho S_G + (1 - \rho) N D^T D, \qquad S_A = S_G = I \text{ at first}$$
    $$X = (S_A + \lambda_A I)^{-1}\, G\, (S_G + \lambda_B I)^{-1}$$

    or, with `eigen`, in the eigenbases S_A = Q_A diag(a) Q_A^T and S_G = Q_G diag(g) Q_G^T,

    $$X = Q_A \left[ (Q_A^T G Q_G) / (a g^T + \lambda) \right] Q_G^T .$$

    Other leaves pass unchanged. A layer whose X is not finite takes G instead; the tap
    `fallbacks` counts them. In the state an inverse that failed is 0. Statistics that are not
    finite are left out (tap `statistics_are_finite`).

    Args:
      stat_decay: rho, in [0, 1).
      damping: lambda, of both factors or of the product; of factors, if not 0, at least what they
        are rounded by, sqrt(n) times the last bit of the largest of n entries of the diagonal.
      update_interval: the statistics are updated at steps 1, 1 + this, ...
      inverse_interval: as often the inverses or eigenbases; default `update_interval`.
      eigen: damp the product of the eigenvalues instead of each factor; eigenvalues below 1e-10
        count as 0.
      damping_a: lambda_A, a number or a tree with one per layer, as `layer_inputs`; default
        `damping`. Not with `eigen`.
      damping_b: lambda_B, likewise.
      layers: how kernels are read, from `gradchain.layers`; default: dense with two axes,
        convolutions with more.

    Extra inputs:
      layer_inputs: tree with an array (..., in) where the params have a layer, i.e. a kernel with
        its bias, or at the kernel itself; None for layers that follow the plain gradient. For a
        convolution the patches (batch, *positions, in). `gradchain.layers` captures it.
      layer_cotangents: likewise (..., out), of the mean loss. Of sampled labels they give the true
        Fisher, of the data's the empirical one.

    References:
      Martens & Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate
      Curvature. Followed is the lineage of KFAC-pytorch as in yorkerlin/StructuredNGD-DL: constant
      damping of each factor and an identity start, where the paper has pi-balanced damping, a
      decay of min(1 - 1/t, 0.95) and rates from a quadratic model.
    """
    if eigen and (damping_a is not None or damping_b is not None):
        raise FlowError(
            "scale_by_k_fac: damping_a and damping_b damp factors; eigen damps products"
        )
    refresh = update_interval if inverse_interval is None else inverse_interval
    lambda_a = damping if damping_a is None else damping_a
    lambda_b = damping if damping_b is None else damping_b

    def factors(g: Signal, layer_inputs: Signal, layer_cotangents: Signal) -> Signal:
        a, d = layer_rows(g, layer_inputs, layer_cotangents, layers)
        return pair(second_moment(a), mean_loss_moment(d)) >> factor_average(stat_decay)

    def inverses(S: Signal) -> Signal:
        sides = ((S[0], lambda_a), (S[1], lambda_b))
        inv = positive_inverse(pair(*(damped(side, per_layer(x, side)) for side, x in sides)))
        return finite_or(inv, zeros_like(inv))

    def step(g: Signal, layer_inputs: Signal, layer_cotangents: Signal) -> Signal:
        G = layer_matrices(g, layer_inputs, layers)
        S = g >> named("factors", every(update_interval, flow(factors)))
        if eigen:
            Q = S >> named("eigenbases", every(refresh, flow(eigenbasis)))
            X = _in_eigenbases(G, Q[0], Q[1], per_layer(damping, G))
        else:
            inv = S >> named("inverses", every(refresh, flow(inverses)))
            X = where(_failed(inv[0]) | _failed(inv[1]), inf, inv[0] @ G @ inv[1])
        return join_layers(finite_or_plain(X, G), g, layers)

    return flow(step)


_failed = lift(lambda inverse: jnp.all(inverse == 0, axis=(-2, -1), keepdims=True), "failed")


def _in_eigenbases(
    G: Signal, input_basis: Signal, output_basis: Signal, damping: Hyperparameter
) -> Signal:
    a, QA = _above(input_basis[0]), input_basis[1]
    g, QG = _above(output_basis[0]), output_basis[1]
    scale = lift(lambda a, g: a[..., :, None] * g[..., None, :], "outer")(a, g) + damping
    return QA @ ((QA.T @ G @ QG) / scale) @ QG.T


def _above(eigenvalues: Signal) -> Signal:
    return where(eigenvalues > SMALLEST_EIGENVALUE, eigenvalues, 0.0)


@method(
    "Martens & Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate "
    "Curvature",
    arxiv="1503.05671",
    tags=("curvature", "kronecker", "matrix", "layerwise"),
    learning_rate=0.03,
    small_model={"damping": 0.1},
)
@transformation()
def k_fac(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    stat_decay: Decay = 0.95,
    damping: NonNegative = 1e-3,
    weight_decay: NonNegative = 0.0,
    weight_decay_start: Length = 0,
    update_interval: Period = 10,
    inverse_interval: Period | None = None,
    eigen: bool = False,
    damping_a: PerLayer | None = None,
    damping_b: PerLayer | None = None,
    mask: Mask | None = None,
    layers: Layers = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """K-FAC: heavy-ball momentum over gradients preconditioned by `scale_by_k_fac`.

        X <- X + weight_decay theta,    buf <- momentum buf + X,    theta <- theta - lr buf

    Args:
      learning_rate: lr, a number or a schedule.
      momentum: heavy ball, undamped.
      stat_decay: see `scale_by_k_fac`.
      damping: likewise.
      weight_decay: added after the preconditioning.
      weight_decay_start: how many steps the decay rests; the code followed has
        20 * update_interval.
      update_interval: see `scale_by_k_fac`.
      inverse_interval: likewise.
      eigen: likewise.
      damping_a: likewise.
      damping_b: likewise.
      mask: the leaves that decay; default all.
      layers: see `scale_by_k_fac`.
      mu_dtype: storage of the momentum; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import k_fac
      >>> params = {"dense": {"kernel": jnp.ones((1, 1))}}
      >>> opt = k_fac(1.0, stat_decay=0.0, damping=1.0)
      >>> inputs, cotangents = {"dense": jnp.ones((1, 1))}, {"dense": jnp.ones((1, 1))}
      >>> updates, state = opt.update(
      ...     params, opt.init(params), params, layer_inputs=inputs, layer_cotangents=cotangents)
      >>> round(float(updates["dense"]["kernel"][0, 0]), 4)
      -0.25
    """
    return chain(
        handed_on(scale_by_k_fac),
        decay_weights(weight_decay, mask=mask, start=weight_decay_start),
        trace(momentum),
        scale_by_learning_rate(learning_rate),
    )

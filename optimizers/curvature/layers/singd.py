"""SINGD."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Length,
    Mask,
    NonNegative,
    Period,
    Scalar,
    Signal,
    chain,
    decay_weights,
    delay,
    every,
    flow,
    handed_on,
    lift,
    maximum,
    named,
    pair,
    scale_by_learning_rate,
    scheduled,
    step_count,
    tap,
    trace,
    transformation,
    where,
)
from ....transforms.curvature import all_finite
from ....transforms.kronecker import (
    Layers,
    all_finite_or,
    finite_or_plain,
    join_layers,
    layer_matrices,
    layer_rows,
)
from .structures import structure_named


@transformation()
def scale_by_singd(
    damping: NonNegative = 1e-3,
    alpha1: Decay = 0.5,
    update_interval: Period = 10,
    lr_cov: NonNegative | Literal["lin2023"] = 1e-2,
    structures: tuple[str, str] = ("dense", "dense"),
    kfac_like: bool = False,
    normalize_lr_cov: bool = False,
    layers: Layers = None,
) -> Flow:
    r"""Structured inverse-free natural gradients: factors K, C of the inverse, moved by products.

    With A, D and G as in `scale_by_k_fac`, U_A = A^T A / N, U_G = N D^T D, P the projection onto
    the structure and tr the mean of the diagonal, each `update_interval` steps from K = C = I on:

    $$N_K = \tfrac s2 \left( \mathrm{tr}(C^T U_G C)\, P(K^T U_A K)
            + \lambda\, \mathrm{tr}(C^T C)\, P(K^T K) - I \right)$$
    $$N_C = \tfrac s2 \left( \mathrm{tr}(K^T U_A K)\, P(C^T U_G C)
            + \lambda\, \mathrm{tr}(K^T K)\, P(C^T C) - I \right)$$
    $$m_K \leftarrow \alpha_1 m_K + N_K, \quad m_C \leftarrow \alpha_1 m_C + N_C, \qquad
      K \leftarrow K (I - \beta m_K), \quad C \leftarrow C (I - \beta m_C)$$

    all from the K and C of before; then X = K K^T G C C^T. Where an entry x of beta m is above 1
    the method itself diverges: such an m is shortened until the largest is 1 - (1 + 4x)^(-1/4),
    which takes factors of one entry where their flow ends, and not to 0. Other leaves pass
    unchanged. A layer whose X is not finite takes G instead; the tap `fallbacks` counts them.
    Factors never become infinite: such an update of theirs is left out, and the tap
    `statistics_are_finite` is false.

    Args:
      damping: lambda.
      alpha1: momentum of the factors, in [0, 1).
      update_interval: the factors are moved at steps 1, 1 + this, ...
      lr_cov: beta; a number, a schedule of the 0-based step, or "lin2023": 2e-4 up to step 100,
        2e-3 below 500, then 1e-2.
      structures: of K and C: "dense", "diagonal", "triltoeplitz", "triutoeplitz",
        "block30diagonal" (or any block size), "hierarchical15_15" (or any sizes).
      kfac_like: the four traces are replaced by 1, which makes it K-FAC without inverses.
      normalize_lr_cov: beta / max(1, max |m|) for each factor, and s = 1 - alpha1 instead of 1.
      layers: see `scale_by_k_fac`.

    Extra inputs:
      layer_inputs, layer_cotangents: see `scale_by_k_fac`.

    References:
      Lin et al. 2023, Simplifying Momentum-based Positive-definite Submanifold Optimization with
      Applications to Deep Learning; Lin et al. 2023, Structured Inverse-Free Natural Gradient.
      Followed is f-dangel/singd; the first paper's code has the rates of "lin2023" built in and
      delays the weight decay.
    """
    if len(structures) != 2:
        raise FlowError(f"scale_by_singd: structures={structures!r} must name two, of K and of C")
    of_inputs, of_outputs = map(structure_named, structures)

    def move(g: Signal, layer_inputs: Signal, layer_cotangents: Signal) -> Signal:
        half = 0.5 * (1 - scheduled(alpha1)) if normalize_lr_cov else 0.5
        a, d = layer_rows(g, layer_inputs, layer_cotangents, layers)
        IK, IC = _identity(of_inputs)(a), _identity(of_outputs)(d)
        factors = delay(pair(IK, IC), _identities, name="factors")
        momenta = delay(pair(IK, IC), 0.0, name="momenta")
        K, C = factors[0], factors[1]
        HK, HC = _gram_after(K, _unit(a, -0.5)), _gram_after(C, _unit(d, 0.5))
        KK, CC = _own_gram(K), _own_gram(C)
        tr = lift(lambda m: 1.0, "one") if kfac_like else _mean_diagonal
        mK = alpha1 * momenta[0] + half * (tr(HC) * HK + damping * tr(CC) * KK - IK)
        mC = alpha1 * momenta[1] + half * (tr(HK) * HC + damping * tr(KK) * CC - IC)
        rate = _rate_at((step_count() - 1) * update_interval, lr_cov)
        kinds = (K, IK, mK), (C, IC, mC)
        ends = [_moved(*kind, rate, normalize_lr_cov) for kind in kinds]
        moved, gone = (pair(*both) for both in zip(*ends, strict=True))
        tap("statistics_are_finite", all_finite(moved))
        momenta << all_finite_or(gone, momenta)
        return factors << all_finite_or(moved, factors)

    def step(g: Signal, layer_inputs: Signal, layer_cotangents: Signal) -> Signal:
        G = layer_matrices(g, layer_inputs, layers)
        factors = g >> named("preconditioner", every(update_interval, flow(move)))
        X = lift(_both_sides, "K K^T G C C^T")(factors[0], G, factors[1])
        return join_layers(finite_or_plain(X, G), g, layers)

    return flow(step)


def _moved(
    K: Signal, eye: Signal, m: Signal, rate: Scalar, normalize: bool
) -> tuple[Signal, Signal]:
    """K (I - rate m), and m; of too long a step the end of the flow along m, and m as short."""
    size = _largest(m)
    if normalize:
        return K - rate / maximum(1.0, size) * K @ m, m
    x = rate * size
    far = x > 1
    kept = where(far, _end_of_flow(x), 1.0)
    reach = where(far, (1.0 - kept) / where(far, size, 1.0), rate)
    # of one entry, size I - m is 0 to the bit, and 1 - m / size is not
    moved = kept * K + reach * K @ (where(far, size, 0.0) * eye - m)
    return moved, where(far, (1.0 - kept) / where(far, x, 1.0), 1.0) * m


def _of_flow(x: jax.Array) -> jax.Array:
    """(1 + 4x)^(-1/4), of numbers from 1 to the last of the format."""
    part = 1 / jnp.maximum(x, 1)
    return jnp.sqrt(jnp.sqrt(part / (part + 4)))


_end_of_flow = lift(_of_flow, "end_of_flow")
_own_gram = lift(lambda k: k.own_gram(), "own_gram")
_mean_diagonal = lift(lambda k: k.mean_diagonal(), "mean_diagonal")
_largest = lift(lambda k: k.largest(), "largest")
_gram_after = lift(lambda k, rows: k.gram(k.transform(rows)), "gram")
_unit = lift(lambda rows, power: rows * max(rows.shape[-2], 1) ** power, "unit")


def _identity(structure: Any) -> Any:
    return lift(lambda rows: structure.identity(rows.shape[-1], rows), "identity")


def _identities(zeros: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(type(x).identity(x.dense().shape[-1], x.dense()) for x in zeros)


def _both_sides(K: Any, G: jax.Array, C: Any) -> jax.Array:
    left = K.square_times(G)
    return jnp.swapaxes(C.square_times(jnp.swapaxes(left, -1, -2)), -1, -2)


def _rate_at(step: Signal, lr_cov: NonNegative | Literal["lin2023"]) -> Scalar:
    """The step size of the factors at that 0-based step of the run."""
    if lr_cov == "lin2023":
        return where(step <= 100, 2e-4, where(step < 500, 2e-3, 1e-2))
    return lift(lr_cov, "lr_cov")(step) if callable(lr_cov) else lr_cov


@method(
    "Lin, Duruisseaux, Leok, Nielsen, Khan & Schmidt 2023, Simplifying Momentum-based "
    "Positive-definite Submanifold Optimization with Applications to Deep Learning",
    arxiv="2302.09738",
    tags=("curvature", "kronecker", "matrix"),
    learning_rate=0.01,
    small_model={"damping": 0.1},
)
@transformation()
def singd(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    momentum: Decay = 0.9,
    damping: NonNegative = 1e-3,
    alpha1: Decay = 0.5,
    weight_decay: NonNegative = 0.0,
    weight_decay_start: Length = 0,
    update_interval: Period = 10,
    lr_cov: NonNegative | Literal["lin2023"] = 1e-2,
    structures: tuple[str, str] = ("dense", "dense"),
    kfac_like: bool = False,
    normalize_lr_cov: bool = False,
    mask: Mask | None = None,
    layers: Layers = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """SINGD: heavy-ball momentum over gradients preconditioned by `scale_by_singd`.

        X <- X + weight_decay theta,    buf <- momentum buf + X,    theta <- theta - lr buf

    Args:
      learning_rate: lr, a number or a schedule.
      momentum: heavy ball, undamped.
      damping: see `scale_by_singd`.
      alpha1: likewise.
      weight_decay: added after the preconditioning.
      weight_decay_start: how many steps the decay rests; the first paper's code has
        20 * update_interval.
      update_interval: see `scale_by_singd`.
      lr_cov: likewise.
      structures: likewise.
      kfac_like: likewise.
      normalize_lr_cov: likewise.
      mask: the leaves that decay; default all.
      layers: see `scale_by_k_fac`.
      mu_dtype: storage of the momentum; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import singd
      >>> params = {"dense": {"kernel": jnp.ones((1, 1))}}
      >>> opt = singd(1.0, damping=0.0, lr_cov=1.0)
      >>> inputs, cotangents = {"dense": jnp.ones((1, 1))}, {"dense": jnp.zeros((1, 1))}
      >>> updates, state = opt.update(
      ...     params, opt.init(params), params, layer_inputs=inputs, layer_cotangents=cotangents)
      >>> float(updates["dense"]["kernel"][0, 0])  # K = C = 1 + 1/2
      -5.0625
    """
    return chain(
        handed_on(scale_by_singd),
        decay_weights(weight_decay, mask=mask, start=weight_decay_start),
        trace(momentum),
        scale_by_learning_rate(learning_rate),
    )

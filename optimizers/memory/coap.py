"""COAP."""

import math
from typing import Literal

import jax
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    Axis,
    Decay,
    DType,
    Flow,
    FlowError,
    Key,
    Mask,
    NonNegative,
    Number,
    Period,
    Positive,
    Ratio,
    Sampler,
    Scalar,
    Signal,
    Size,
    chain,
    decay_weights,
    ema,
    flow,
    handed_on,
    is_neutral,
    leaf_rms,
    leaf_where,
    low_rank,
    maximum,
    named,
    quantize_state,
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    transformation,
)
from ...transforms.subspaces import correlation_aware_basis
from .adafactor import scale_by_adafactor

Base = Literal["adam", "adafactor"]
LARGE_KERNEL = 9216
"""Entries above which kernels of convolutions are projected."""

MOMENTS = {"mu", "nu"}
"""The states that are kept in 8 bits."""


@transformation()
def coap_subspaces(
    inner: optax.GradientTransformation,
    rank: Size | None = None,
    rank_ratio: Ratio | None = None,
    update_interval: Period = 32,
    reproject_factor: Period = 5,
    restore_state: bool = False,
    scale: Number = 1.0,
    projection_lr: NonNegative = 0.1,
    projection_clip: Positive = 1.0,
    eight_bit: bool = False,
    block_size: Size = 4096,
    channel_axis: Axis = -1,
    fan_in_axis: Axis = -2,
    key: Key = 0,
    project: Mask | None = None,
    sampler: Sampler | None = None,
) -> Flow:
    """Any transformation that keeps a state `mu`, in subspaces that follow it and the gradient.

        u_t = scale up(inner(down(g_t)))

    Kernels of convolutions (four axes) have two bases, for their input and output channels; those
    whose last spatial axis has length 1 one, for the output channels. How the bases move is told by
    `transforms.subspaces.correlation_aware_basis`. Leaves that are not projected go through `inner`
    as they are, without the scale.

    Args:
      inner: the transformation.
      rank: vectors.
      rank_ratio: in place of the rank, how many times smaller than the shorter side it is, rounded
        down; of kernels the product of both sides is so many times smaller.
      update_interval: k.
      reproject_factor: after so many movements P is found anew.
      restore_state: carry the moments over to the new subspace, else they stay as they are.
      scale: factor of the projected leaves' updates.
      projection_lr: rate at which P moves.
      projection_clip: largest norm of the gradient by which it does.
      eight_bit: keep the moments `mu` and `nu` in block-wise 8 bits; see
        `transforms.quantize_state`.
      block_size: entries of such a block.
      channel_axis, fan_in_axis: of the output and input channels of kernels; default Flax's layout.
      key: seed or key of the sketch at t = 1.
      project: leaves to be projected, of two or four axes: a predicate of a leaf, a tree of
        booleans, or a function of the params; default matrices both of whose sides are longer than
        their rank, and, if there is a `rank_ratio`, kernels of more than 9216 entries.
      sampler: `(key, count, params) -> tree` of (shorter side, rank) matrices for the sketch; empty
        at leaves that are no matrices; count is 0 at the first step.

    Raises:
      ValueError: without rank and ratio; in `init`, for a kernel without a ratio, or a rank above
        the smaller side of a leaf that `project` selects.

    References:
      Xiao et al. 2024, COAP (arXiv 2412.00071).
    """
    if rank is None and rank_ratio is None:
        raise FlowError("coap: it needs rank=... or rank_ratio=...")

    def rank_of(shape: tuple[int, ...]) -> int:
        return rank if rank_ratio is None else max(int(min(shape) // rank_ratio), 1)  # type: ignore

    def ranks(leaf: jax.Array | jax.ShapeDtypeStruct) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if leaf.ndim == 2:
            if rank_of(leaf.shape) > min(leaf.shape):
                raise FlowError(
                    f"rank={rank} exceeds the smaller side of a leaf of shape {leaf.shape}"
                )
            return (int(leaf.shape[0] >= leaf.shape[1]),), (rank_of(leaf.shape),)
        if leaf.ndim != 4 or rank_ratio is None:
            raise FlowError(
                f"coap: a leaf of shape {leaf.shape} is projected only if it has two axes, or four "
                "and there is a rank_ratio"
            )
        out_axis, in_axis = channel_axis % 4, fan_in_axis % 4
        spatial = [leaf.shape[a] for a in range(4) if a not in (out_axis, in_axis)]
        if spatial[-1] == 1:
            return (out_axis,), (max(int(leaf.shape[out_axis] // rank_ratio), 1),)
        axes = (out_axis, in_axis)
        return axes, tuple(max(int(leaf.shape[a] // math.sqrt(rank_ratio)), 1) for a in axes)

    def is_wide(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
        if leaf.ndim == 4:
            return rank_ratio is not None and leaf.size > LARGE_KERNEL
        return leaf.ndim == 2 and leaf.size > 0 and rank_of(leaf.shape) < min(leaf.shape)

    basis = correlation_aware_basis(
        ranks,
        update_interval,
        reproject_factor,
        projection_lr,
        projection_clip,
        fan_in_axis,
        key,
        sampler,
    )
    projected = low_rank(
        inner,
        basis,
        moments="transport" if restore_state else "keep",
        scale=scale,
        select=leaf_where(is_wide) if project is None else project,
    )
    if not eight_bit:
        return projected
    return quantize_state(projected, block_size, 1, select=lambda path, _: bool(MOMENTS & {*path}))


@transformation()
def scale_by_coap(
    rank: Size | None = None,
    rank_ratio: Ratio | None = None,
    update_interval: Period = 32,
    reproject_factor: Period = 5,
    restore_state: bool = False,
    scale: Number = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative | None = None,
    projection_lr: NonNegative = 0.1,
    projection_clip: Positive = 1.0,
    eight_bit: bool = False,
    block_size: Size = 4096,
    channel_axis: Axis = -1,
    fan_in_axis: Axis = -2,
    key: Key = 0,
    project: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam in subspaces that follow gradient and momentum.

        P_t moves at t = k + 1, 2k + 1, ..., else P_{t-1}
        L_t = g_t P_t^T                                 (m >= n; P_t^T g_t otherwise)
        u_t = scale sqrt(1 - b2^t) / (1 - b1^t) m_t / (sqrt(v_t) + eps) P_t

    Leaves that are not projected get plain Adam, without the scale.

    Args:
      rank, rank_ratio, update_interval, reproject_factor, restore_state, scale, projection_lr,
        projection_clip, eight_bit, block_size, channel_axis, fan_in_axis, key, project, sampler:
        see `coap_subspaces`.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, before bias correction; default 1e-6.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Raises:
      ValueError: see `coap_subspaces`.

    References:
      Xiao et al. 2024, COAP: Memory-Efficient Training with Correlation-Aware Gradient Projection
      (arXiv 2412.00071). We follow bytedance/coap: its rate and clipping of P's movement are not
      in the paper, and eps is added before bias correction.
    """
    eps = 1e-6 if eps is None else eps
    # The bases follow the momentum: where it is the last gradient alone, that is kept all the same.
    kept = np.float32(0) if is_neutral(b1) else b1
    adam = handed_on(scale_by_adam, b1=kept, eps=eps, eps_before_correction=True)
    return handed_on(coap_subspaces, inner=adam)


@method(
    "Xiao et al. 2024, COAP: Memory-Efficient Training with Correlation-Aware Gradient Projection",
    arxiv="2412.00071",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"update_interval": 10},
    required={"rank": 2},
)
@transformation()
def coap(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size | None = None,
    rank_ratio: Ratio | None = None,
    update_interval: Period = 32,
    reproject_factor: Period = 5,
    restore_state: bool = False,
    scale: Number = 1.0,
    base: Base = "adam",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative | None = None,
    weight_decay: NonNegative = 0.0,
    projection_lr: NonNegative = 0.1,
    projection_clip: Positive = 1.0,
    clip_threshold: Positive | None = 1.0,
    decay_rate: Positive = 0.8,
    min_scale: NonNegative = 1e-3,
    multiply_by_parameter_scale: bool = True,
    eight_bit: bool = False,
    block_size: Size = 4096,
    channel_axis: Axis = -1,
    fan_in_axis: Axis = -2,
    key: Key = 0,
    project: Mask | None = None,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """COAP; "adam" is the rule of `scale_by_coap`. "adafactor", with up and down as there:

        alpha_t = rho_t max(min_scale, RMS(x_{t-1}))      leaf by leaf, of the whole leaf
        M_t = b1 M_{t-1} + (1 - b1) alpha_t adafactor(down(g_t))
        x_t = x_{t-1} - scale up(M_t) - weight_decay alpha_t x_{t-1}

    with `adafactor` the direction of `scale_by_adafactor`, all leaves of two axes factored.

    Args:
      learning_rate: rho, number or schedule.
      rank, rank_ratio, update_interval, reproject_factor, restore_state, scale, projection_lr,
        projection_clip, eight_bit, block_size, channel_axis, fan_in_axis, key, project, sampler:
        see `coap_subspaces`.
      base: "adam" or "adafactor".
      b1: decay of the momentum, in [0, 1).
      b2: decay of Adam's second moment, in [0, 1).
      eps: default 1e-6 in Adam, 1e-30, added to the squares, in Adafactor.
      weight_decay: with "adam" decay of the params after the step, multiplied by the rate; not
        projected.
      clip_threshold, decay_rate: of Adafactor; see `scale_by_adafactor`.
      min_scale: least scale of a leaf with "adafactor".
      multiply_by_parameter_scale: False leaves out the RMS: alpha_t = rho_t.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The optimizer. For an (m, n) matrix with m >= n its state is 2 m rank + rank n; with
      "adafactor" m rank + rank n + m + rank.

    Raises:
      ValueError: for a hyper-parameter out of range, or without rank and ratio.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import coap
      >>> opt = coap(0.5, rank=1)
      >>> params = jnp.diag(jnp.array([4.0, 2.0]))
      >>> print(opt.update(params, opt.init(params))[0].round(1) + 0.0)
      [[-0.5  0.2]
       [ 0.5 -0.2]]
    """
    if base == "adam":
        return chain(
            handed_on(scale_by_coap),
            scale_by_learning_rate(learning_rate),
            decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
        )
    eps = 1e-30 if eps is None else eps
    direction = handed_on(scale_by_adafactor, eps=eps, min_dim_size_to_factor=1)
    rescales = multiply_by_parameter_scale

    def alpha(params: Signal | None) -> Scalar:
        rho = scheduled(learning_rate)
        return rho if params is None else rho * maximum(min_scale, leaf_rms(params))

    def momentum(g: Signal, params: Signal | None) -> Signal:
        return alpha(params) * (g >> direction) >> named("mu", ema(b1, dtype=mu_dtype))

    def descent(g: Signal, params: Signal | None) -> Signal:
        inner = flow(momentum if rescales else lambda g: momentum(g, None), name="adafactor")
        u = g >> handed_on(coap_subspaces, inner=inner)
        decay = (
            weight_decay if is_neutral(weight_decay) else scheduled(weight_decay) * alpha(params)
        )
        return -u >> decay_weights(decay, "independent", mask=mask)

    return flow(descent if rescales else lambda g: descent(g, None), name="coap")

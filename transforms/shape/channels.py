"""Output channels: the axis convention, and norms and means over one channel's weights."""

import math

import jax
import jax.numpy as jnp

from ..accumulate.moments import divide
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import lift, maximum, where
from ..notation.hyperparameters import Axis, NonNegative, Number
from ..notation.roots import norm
from ..notation.signal import Signal
from ..notation.steps import scheduled


def other_axes(x: jax.Array, channel_axis: int) -> tuple[int, ...]:
    """All axes of the array but that of the output channels."""
    return tuple(axis for axis in range(x.ndim) if axis != channel_axis % x.ndim)


def _unit_axes(x: jax.Array, channel_axis: int) -> tuple[int, ...]:
    if x.ndim <= 1:
        return tuple(range(x.ndim))
    if x.ndim >= 4:
        return other_axes(x, channel_axis)
    channel = channel_axis % x.ndim
    return (channel + 1 if channel == 0 else channel - 1,)


@lift
def unit_norm(x: jax.Array, channel_axis: int = -1) -> jax.Array:
    """Norm of each unit's weights, shaped to broadcast against the leaf.

    A unit is the whole leaf for scalars and vectors, the axis beside that of the channels (the
    inputs) for two and three dimensions, and all but the channels for more.

    Args:
      x: a tree signal.
      channel_axis: axis of the output channels: -1 in Flax kernels, 0 in those of torch.

    References:
      Brock et al. 2021, High-Performance Large-Scale Image Recognition Without Normalization.
    """
    return norm(x, axis=_unit_axes(x, channel_axis), keepdims=True)


@transformation()
def adaptive_grad_clip(
    clipping: Number = 1e-2, eps: NonNegative = 1e-3, channel_axis: Axis = -1
) -> Flow:
    r"""Clips the gradient of each unit at a fraction of the norm of its weights.

    A transformation to send signals through.

    .. math::
        g \leftarrow g \min\left(1, \frac{\lambda \max(\|\theta\|, \epsilon)}{\|g\|}\right)
        \quad \text{unit by unit, see `unit\_norm`}

    As `optax.adaptive_grad_clip`, for either place of the channels.

    Args:
      clipping: the fraction lambda.
      eps: least norm that weights are taken to have, so that those at zero can move.
      channel_axis: axis of the output channels: -1 in Flax kernels, 0 in those of torch.

    References:
      Brock et al. 2021, High-Performance Large-Scale Image Recognition Without Normalization
      (arXiv 2102.06171).
    """

    def step(g: Signal, params: Signal) -> Signal:
        allowed = clipping * maximum(unit_norm(params, channel_axis=channel_axis), eps)
        length = unit_norm(g, channel_axis=channel_axis)
        return where(length > allowed, g * (allowed / maximum(length, 1e-6)), g)

    return flow(step)


@transformation()
def centralize_gradients(channel_axis: Axis = -1) -> Flow:
    """Takes the mean over each output channel's weights out of the gradients of matrices and up.

    A transformation to send signals through.

    Args:
      channel_axis: axis of the output channels: -1 in Flax kernels, 0 in those of torch.

    References:
      Yong et al. 2020, Gradient Centralization: A New Optimization Technique for Deep Neural
      Networks (arXiv 2004.01461).
    """

    def centred(g: jax.Array) -> jax.Array:
        if g.ndim <= 1 or g.size == 0:
            return g
        return g - jnp.mean(g, axis=other_axes(g, channel_axis), keepdims=True)

    return flow(lambda g: g >> lift(centred, "centralize"))


@transformation()
def normalize_gradients(eps: NonNegative = 1e-8) -> Flow:
    """Divides each gradient of more than two entries by its standard deviation, plus eps.

    One whose entries are equal but for rounding stays as it is.

    A transformation to send signals through.

    Args:
      eps: added to the (unbiased) standard deviation.

    References:
      Wright & Demeure 2021, Ranger21 (arXiv 2106.13731).
    """

    def normalized(g: jax.Array, eps: float | jax.Array) -> jax.Array:
        if g.size <= 2:
            return g
        deviation = g - jnp.mean(g)
        spread = norm(deviation) / math.sqrt(g.size - 1)
        rounding = jnp.max(jnp.abs(g)) * (8 * jnp.finfo(g.dtype).eps)
        return jnp.where(spread > rounding, g / (spread + eps), g)

    return flow(lambda g: lift(normalized, "normalize")(g, eps))


@checked()
def norm_loss_gradient(
    params: Signal, factor: Number, eps: NonNegative, channel_axis: int
) -> Signal:
    """The gradient of factor * (1 - norm)^2, summed over the units of the weights.

    A function of signals.
    """
    length = unit_norm(params, channel_axis=channel_axis)
    return 2 * scheduled(factor) * (1 - divide(1.0, length + eps, eps)) * params


@transformation()
def norm_loss(factor: Number = 1e-4, eps: NonNegative = 1e-8, channel_axis: Axis = -1) -> Flow:
    r"""Adds the gradient of a penalty that draws the norm of each unit's weights to 1.

    A transformation to send signals through.

    .. math::
        u + 2 \lambda \left(1 - \frac{1}{\|\theta\| + \epsilon}\right) \theta
        \quad \text{unit by unit, see `unit\_norm`}

    In a chain it stands where weight decay stands, before the learning rate.

    Args:
      factor: strength lambda of the penalty.
      eps: added to the norm.
      channel_axis: axis of the output channels: -1 in Flax kernels, 0 in those of torch.

    References:
      Georgiou et al. 2021, Norm Loss: An efficient yet effective regularization method for deep
      neural networks (arXiv 2103.06583).
    """
    return flow(lambda u, params: u + norm_loss_gradient(params, factor, eps, channel_axis))

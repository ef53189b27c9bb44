"""The radial direction: the part of an update that only makes the weights longer or shorter."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import lift, where
from ..notation.hyperparameters import Hyperparameter, NonNegative
from ..notation.roots import dot, norm, quotient, saturated, smooth_quotient
from ..notation.signal import Signal
from .channels import other_axes


@lift
def _lengths(x: jax.Array, channel_axis: int) -> jax.Array:
    return norm(x, _within_channel(x, channel_axis), keepdims=True)


@lift
def _products(x: jax.Array, y: jax.Array, channel_axis: int) -> jax.Array:
    return dot(x, y, _within_channel(x, channel_axis), keepdims=True)


def _within_channel(x: jax.Array, channel_axis: int) -> tuple[int, ...]:
    return other_axes(x, channel_axis) if x.ndim > 1 else tuple(range(x.ndim))


_length_of_all = lift(partial(norm, keepdims=True), "length_of_all")
_sum_of_all = lift(lambda products: saturated(jnp.sum(products, keepdims=True)), "sum_of_all")


@lift
def _looks_scale_invariant(
    params: jax.Array,
    product: jax.Array,
    length: jax.Array,
    slope: jax.Array,
    delta: float | jax.Array,
    eps: float | jax.Array,
) -> jax.Array:
    if params.ndim < 2:
        return jnp.zeros((), bool)
    lengths = jnp.maximum(length, eps) * jnp.maximum(slope, eps)
    # With eps = 0 a zero vector would be 0 / 0; its cosine is 0.
    cosine = jnp.where(
        lengths > 0, quotient(jnp.abs(product), jnp.where(lengths > 0, lengths, 1)), 0
    )
    entries = params.size // max(product.size, 1)
    return jnp.max(cosine, initial=0.0) < delta / math.sqrt(max(entries, 1))


@lift
def _without_radial(
    u: jax.Array,
    params: jax.Array,
    product: jax.Array,
    length: jax.Array,
    eps: float | jax.Array,
) -> jax.Array:
    reach = jnp.where(length + eps > 0, length + eps, 1)
    return saturated(u) - params / reach * (product / reach)


@checked()
def project_out_radial(
    params: Signal,
    g: Signal,
    u: Signal,
    delta: Hyperparameter = 0.1,
    eps: NonNegative = 1e-8,
    channel_axis: int = -1,
) -> tuple[Signal, Signal]:
    r"""Takes the radial part out of the update of weights that look scale-invariant.

    A function of signals.

    Where the loss does not depend on the length of a weight vector, its gradient is orthogonal to
    it. A leaf of two or more dimensions, seen as rows of d entries, is taken to be of that kind if
    in every row the absolute cosine of weights and gradient is below :math:`\delta / \sqrt d`.
    Two views are tried: one row per output channel, then the whole leaf as one row. With the
    first that passes,

    .. math::
        u_i \leftarrow u_i - q_i \langle q_i, u_i \rangle, \qquad
        q_i = \frac{\theta_i}{\|\theta_i\| + \epsilon} \quad \text{in every row}

    Args:
      params: the weights.
      g: the gradient, which the test looks at.
      u: the update, which is projected.
      delta: threshold of the test; 0 never projects.
      eps: least norm in the test, added to the norm in the projection.
      channel_axis: axis of the output channels: -1 in Flax kernels, 0 in those of torch.

    Returns:
      The update, and one boolean per leaf: whether it was projected.

    References:
      Heo et al. 2021, AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
      Weights (arXiv 2006.08217).
    """
    length, slope = (_lengths(x, channel_axis=channel_axis) for x in (params, g))
    along, radial = (_products(x, params, channel_axis=channel_axis) for x in (g, u))
    whole, whole_radial = _length_of_all(length), _sum_of_all(radial)
    channels = _looks_scale_invariant(params, along, length, slope, delta, eps)
    layer = _looks_scale_invariant(
        params, _sum_of_all(along), whole, _length_of_all(slope), delta, eps
    )
    tangent = _without_radial(
        u, params, where(channels, radial, whole_radial), where(channels, length, whole), eps
    )
    projected = channels | layer
    return where(projected, tangent, u), projected


def _without_params(g: jax.Array, params: jax.Array, eps: float | jax.Array = 1e-30) -> jax.Array:
    square = jnp.sum((params * jnp.conj(params)).real)
    share = smooth_quotient(dot(g, params), square + eps)
    return saturated(g - share * params)


project_out_params = lift(
    _without_params,
    "project_out_params",
    doc="`project_out_params(g, params, eps=1e-30)`: each leaf without its component "
    "along the weights, g - <w, g> / (<w, w> + eps) w.",
)

"""The radial direction: the part of an update that only makes the weights longer or shorter."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.functions import lift, where
from ..notation.hyperparameters import Hyperparameter, NonNegative
from ..notation.roots import dot, norm, quotient, saturated, smooth_quotient
from ..notation.sharding import replicated, resharded
from ..notation.signal import Signal
from .channels import as_rows


def _rows(x: jax.Array, channel_axis: int | None) -> jax.Array:
    return replicated(x).reshape(1, -1) if channel_axis is None else as_rows(x, channel_axis)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return dot(b, a, axis=1, keepdims=True)


def _lengths(rows: jax.Array) -> jax.Array:
    return norm(rows, axis=1, keepdims=True)


def _looks_scale_invariant(
    params: jax.Array,
    g: jax.Array,
    delta: float | jax.Array,
    eps: float | jax.Array,
    channel_axis: int | None,
) -> jax.Array:
    theta, grad = _rows(params, channel_axis), _rows(g, channel_axis)
    norms = jnp.maximum(_lengths(theta), eps) * jnp.maximum(_lengths(grad), eps)
    # With eps = 0 a zero row would be 0 / 0; its cosine is 0.
    cosine = jnp.where(
        norms > 0, quotient(jnp.abs(_dot(theta, grad)), jnp.where(norms > 0, norms, 1)), 0
    )
    return jnp.max(cosine, initial=0.0) < delta / math.sqrt(max(theta.shape[1], 1))


def _without_radial(
    params: jax.Array, u: jax.Array, eps: float | jax.Array, channel_axis: int | None
) -> jax.Array:
    theta, rows = _rows(params, channel_axis), saturated(_rows(u, channel_axis))
    length = _lengths(theta) + eps
    unit = theta / jnp.where(length > 0, length, 1)
    tangent = rows - unit * _dot(unit, rows)
    if channel_axis is None:
        return resharded(tangent.reshape(u.shape), u)
    moved = jnp.moveaxis(u, channel_axis, 0).shape
    return resharded(jnp.moveaxis(tangent.reshape(moved), 0, channel_axis), u)


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
    channels = _gate(params, g, delta, eps, channel_axis=channel_axis)
    layer = _gate(params, g, delta, eps, channel_axis=None)
    by_channel = _project(params, u, eps, channel_axis=channel_axis)
    by_layer = _project(params, u, eps, channel_axis=None)
    return where(channels, by_channel, where(layer, by_layer, u)), channels | layer


def _matrices_only(gate: Any) -> Any:
    def gated(params: jax.Array, *args: float | jax.Array, **kwargs: Any) -> jax.Array:
        return gate(params, *args, **kwargs) if params.ndim > 1 else jnp.zeros((), bool)

    return gated


def _unless_vector(projection: Any) -> Any:
    def projected(
        params: jax.Array, u: jax.Array, eps: float | jax.Array, channel_axis: int | None
    ) -> jax.Array:
        return projection(params, u, eps, channel_axis) if params.ndim > 1 else u

    return projected


_gate = lift(_matrices_only(_looks_scale_invariant), "looks_scale_invariant")
_project = lift(_unless_vector(_without_radial), "without_radial")


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

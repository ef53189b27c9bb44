"""A filter whose hidden state is the gradient and whose covariance is the Hessian."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ....transforms import lift
from ....transforms.curvature.dense import decomposed, divided, rounding
from ....transforms.curvature.dual import matmul
from ....transforms.notation import linalg

SMALLEST_EXCESS = 1e-6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """A normal distribution.

    Attributes:
      mean: (d,).
      covariance: (d, d).
    """

    mean: jax.Array
    covariance: jax.Array


gaussian = lift(
    Gaussian,
    "gaussian",
    doc="`gaussian(mean, covariance)`: the two as one leaf.",
)


def _predicted(past: Gaussian, decay: float | jax.Array, noise: float | jax.Array) -> Gaussian:
    eye = jnp.eye(past.mean.size, dtype=past.mean.dtype)
    return Gaussian(decay * past.mean, decay**2 * past.covariance + noise * eye)


kalman_predict = lift(
    _predicted,
    "kalman_predict",
    doc="`kalman_predict(past, decay, noise)`: one step of x' = decay x + sqrt(noise) z, z normal.",
)


def _conditioned(
    predicted: Gaussian, measured: Gaussian, prior_precision: float | jax.Array
) -> Gaussian:
    of = decomposed(measured.covariance)
    precisions = divided(1.0, of.values, rounding(of))
    is_close = jnp.min(precisions, initial=jnp.inf) - prior_precision <= SMALLEST_EXCESS

    def in_basis(values: jax.Array) -> jax.Array:
        return matmul(of.vectors * values[None, :], of.vectors.T)

    # not added and taken off again, which leaves nothing of what is small beside it
    without_prior = in_basis(precisions - jnp.where(is_close, 0, prior_precision))
    measured_precision = in_basis(precisions + jnp.where(is_close, prior_precision, 0))
    prediction_precision = linalg.inv(predicted.covariance)
    covariance = linalg.inv(prediction_precision + without_prior)
    weighted = matmul(prediction_precision, predicted.mean)
    weighted = weighted + matmul(measured_precision, measured.mean)
    return Gaussian(matmul(covariance, weighted), (covariance + covariance.T) / 2)


discriminative_update = lift(
    _conditioned,
    "discriminative_update",
    doc="`discriminative_update(predicted, measured, prior_precision)`: the "
    "discriminative Kalman update. The measurement is a posterior given its own data "
    "alone, so the prior's precision, a multiple of the identity, is taken off; where "
    "that would not leave a positive matrix it is added to the measurement's first. "
    "Directions in which the measured covariance is zero up to rounding say nothing. "
    "References: Burkhart et al. 2020, The discriminative Kalman filter for Bayesian "
    "filtering with nonlinear and non-Gaussian observation models.",
)


def _shifted_by_ridge(of: Gaussian, ridge: float | jax.Array) -> jax.Array:
    eye = jnp.eye(of.mean.size, dtype=of.mean.dtype)
    return linalg.solve(of.covariance + ridge * eye, of.mean)


whitened_mean = lift(
    _shifted_by_ridge,
    "whitened_mean",
    doc="`whitened_mean(of, ridge)`: (covariance + ridge I)^{-1} mean.",
)


def _chosen(condition: jax.Array, one: Gaussian, other: Gaussian) -> Gaussian:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)


choose = lift(
    _chosen,
    "choose",
    doc="`choose(condition, one, other)`: one of two leaves that are trees themselves.",
)

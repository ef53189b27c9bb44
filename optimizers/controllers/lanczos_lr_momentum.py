"""Rate and momentum of heavy-ball SGD from the spectrum of the Hessian."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    FlowError,
    Key,
    NonNegativeConstant,
    PositiveConstant,
    Share,
    Size,
    checked,
)
from ...transforms.curvature import lanczos
from ...transforms.notation.sharding import resharded
from ...transforms.notation.values import working
from ...transforms.trees.random import typed_key

NOISE = 1e-6
"""Ritz values below this share of the largest are rounding."""


class RateAndMomentum(NamedTuple):
    """What the estimator gives.

    Attributes:
      learning_rate: of heavy-ball SGD.
      momentum: likewise.
      ritz_values: approximate eigenvalues of the Hessian, ascending.
      weights: of each in its spectral density; they sum to 1.
    """

    learning_rate: jax.Array
    momentum: jax.Array
    ritz_values: jax.Array
    weights: jax.Array


@method(
    "Granziol, Zohren & Roberts 2022, Learning Rates as a Function of Batch Size: A Random Matrix "
    "Theory Approach to Neural Network Training",
    arxiv="2006.09092",
    kind="measurement",
    tags=("own-rate", "curvature", "closure", "loop"),
)
@checked()
def lanczos_lr_momentum(
    num_iterations: Size = 10,
    key: Key = 0,
    lr_scale: PositiveConstant = 1.0,
    smallest: Literal["min_positive"] | PositiveConstant = "min_positive",
    max_learning_rate: NonNegativeConstant | None = None,
    max_momentum: Share = 0.999,
) -> Callable[..., RateAndMomentum]:
    r"""Polyak's optimal pair for the curvature at hand, by Lanczos' method.

    .. math::
        \eta = s \Bigl(\frac{2}{\sqrt{\lambda_1} + \sqrt{\lambda_n}}\Bigr)^2, \qquad
        \mu = \Bigl(\frac{\sqrt{\lambda_1} - \sqrt{\lambda_n}}
                         {\sqrt{\lambda_1} + \sqrt{\lambda_n}}\Bigr)^2

    with the largest and the smallest positive Ritz value of the Hessian of the loss, those below
    1e-6 of the largest left out. The loop calls it from time to time, once per epoch in the paper,
    and sets the injected `learning_rate` and `momentum` of `sgd`:

        estimate = lanczos_lr_momentum()
        pair_at = jax.jit(lambda params, batch: estimate(params, lambda p: loss(p, batch)))

    The Hessian of a batch has larger eigenvalues than that of the loss (see
    `schedules.batch_hessian_max_eigenvalue`), so the rate is cautious for small batches. Dropout
    and batch statistics have to be frozen in the loss.

    Args:
      num_iterations: Hessian-vector products; as many vectors like the params are held meanwhile.
      key: seed or key of the start vector; a key may be given at each call, too.
      lr_scale: s, a safety factor.
      smallest: lambda_n: "min_positive", or a number, such as the coefficient of an L2 term, below
        which the spectrum is not meant to go.
      max_learning_rate: the cap of the rate.
      max_momentum: the cap of the momentum, which tends to 1 as lambda_n tends to 0.

    Returns:
      A function `(params, value_fn, key=...) -> RateAndMomentum`, to be jitted. Where no Ritz value
      is positive there is no such pair: rate and momentum are 0.

    Raises:
      ValueError: for an argument out of range, or params that are not real.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import lanczos_lr_momentum
      >>> curvature = jnp.array([1.0, 4.0, 9.0])
      >>> pair = lanczos_lr_momentum()(jnp.ones(3), lambda x: jnp.sum(curvature * x**2) / 2)
      >>> [round(float(x), 4) for x in pair[:2]]
      [0.25, 0.25]

    References:
      Granziol, Zohren & Roberts 2022 (arXiv 2006.09092) describe it briefly and have no published
      code: which Ritz value counts as smallest, the safety factor and the caps are choices of ours.
    """

    def estimate(
        params: optax.Params, value_fn: Callable[[Any], Any], key: Key = key
    ) -> RateAndMomentum:
        for leaf in jax.tree.leaves(params):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise FlowError(
                    f"lanczos_lr_momentum: params must be real, got {jnp.result_type(leaf)}"
                )

        def product(vector: optax.Params) -> optax.Params:
            tangent = jax.tree.map(lambda v, p: v.astype(p.dtype), vector, params)
            found = jax.jvp(jax.grad(value_fn), (params,), (tangent,))[1]
            return jax.tree.map(working, found)

        values, weights = lanczos(product, _start(params, key), num_iterations)
        top = values[-1]
        positive = values > NOISE * top
        low = jnp.where(positive, values, jnp.inf).min() if smallest == "min_positive" else smallest
        # a comparison with NaN is false: what is not finite stays so, for the loop to see
        none = top <= 0
        ends = (jnp.where(none, 1.0, end) for end in (top, jnp.minimum(low, top)))
        rate, momentum = _optimal(*ends)
        rate = jnp.minimum(
            lr_scale * rate, jnp.inf if max_learning_rate is None else max_learning_rate
        )
        momentum = jnp.minimum(momentum, max_momentum)
        return RateAndMomentum(
            jnp.where(none, 0.0, rate), jnp.where(none, 0.0, momentum), values, weights
        )

    return estimate


def _start(params: optax.Params, key: Key) -> optax.Params:
    """A Gaussian vector like the params."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(typed_key(key), max(len(leaves), 1))
    drawn = [
        resharded(jax.random.normal(k, leaf.shape, working(leaf).dtype), leaf)
        for k, leaf in zip(keys, map(jnp.asarray, leaves), strict=False)
    ]
    return jax.tree.unflatten(structure, drawn)


def _optimal(top: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    large, small = jnp.sqrt(top), jnp.sqrt(low)
    return (2 / (large + small)) ** 2, ((large - small) / (large + small)) ** 2

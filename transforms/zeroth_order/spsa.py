"""Simultaneous perturbation: a gradient from differences of losses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..closures.checks import LossFunction
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Hyperparameter, Key, Positive, Sampler, Size
from ..notation.known import each, summed
from ..notation.roots import saturated
from ..notation.signal import Operand, Signal
from ..notation.steps import scheduled, step_count, tap
from ..notation.values import Leaves
from ..trees.random import stored_key
from .directions import Directions, Distribution
from .losses import base_point, loss_function, moved, params_at, refuse_noise
from .ties import tied, unfused

SlopeTransform = Callable[[Signal], Signal] | None


@transformation()
def spsa_gradient(
    perturbation_scale: Positive = 1e-3,
    n_samples: Size = 1,
    one_sided: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
    distribution: Distribution = "gaussian",
    slope_transform: SlopeTransform = None,
    check_deterministic: bool = False,
) -> Flow:
    """A gradient estimate from losses alone: the slope along random directions, times these.

    A transformation to send signals through.

        c_i = (L(theta + eps z_i) - L(theta - eps z_i)) / (2 eps)       two-sided
        c_i = (L(theta + eps z_i) - L(theta)) / eps                     one-sided
        g = (1/n) sum_i c_i z_i

    with eps = `perturbation_scale`. It stands in front of any optimizer; the incoming gradient is
    not read and may be None. E[g] is the gradient of the loss smoothed over a Gaussian; |g| grows
    with the root of the number of params, so learning rates are small.

    The directions are redrawn from the key for every use, so nothing of the size of the params is
    kept. Perturbed params are computed in float32 at least. The loss is traced once for all
    evaluations of a step: noise that is made in Python is the same in all of them.

    Args:
      perturbation_scale: eps, in units of the params.
      n_samples: directions at a step; 2 n evaluations of the loss, or n + 1 one-sided.
      one_sided: difference to the loss at the params themselves, evaluated once.
      key: seed or key of the directions.
      sampler: `(key, count, params) -> tree` of directions; count is 1 at the first step, the key
        that of the step, and of the sample where there are several. `sparse_directions` is one.
      distribution: "gaussian", "rademacher" (signs), or "sphere" (of length sqrt(d), d entries).
      slope_transform: a function of the signal c, such as `sign`.
      check_deterministic: evaluate the loss twice more at the params, and refuse two values.

    Returns:
      The transformation; `update` needs `params` and `value_fn` (params -> loss of this batch), or
      the recorded `slopes` of a step in its place. Its state is a counter and a key. The slopes can
      be observed as "slopes": a scalar, or one per sample; see `replay`.

    Raises:
      ValueError: for a hyper-parameter out of range, a missing input, or a loss that differs at one
        point (under jit: while the program runs).

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.transforms.zeroth_order import spsa_gradient
      >>> opt = optax.chain(spsa_gradient(n_samples=256), optax.sgd(0.5))
      >>> x = jnp.array([1.0, -2.0])
      >>> state = opt.init(x)
      >>> u, state = opt.update(None, state, x, value_fn=lambda x: jnp.sum(x**2))
      >>> bool(jnp.all(jnp.sign(u) == jnp.array([-1.0, 1.0])))
      True

    References:
      Spall 1992, Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
      Approximation; Nesterov & Spokoiny 2017, Random Gradient-Free Minimization of Convex
      Functions; Malladi et al. 2023 (arXiv 2305.17333) for the seed in place of the direction.
    """
    directions = Directions(distribution, sampler, n_samples)
    measure = partial(
        difference_quotients,
        directions=directions,
        one_sided=one_sided,
        check_deterministic=check_deterministic,
    )

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, slopes: Signal | None = None
    ) -> Signal:
        root, at, scale = stored_key(key), params_at(g, params), scheduled(perturbation_scale)
        c = tap("slopes", measure(value_fn, slopes, at, root, scale))
        return along(c if slope_transform is None else slope_transform(c), at, root, directions)

    return flow(step)


def difference_quotients(
    value_fn: Signal | None,
    given: Signal | None,
    at: Signal,
    root: Signal,
    scale: Hyperparameter,
    **how: Any,
) -> Signal:
    """The slopes along the directions of this step: a scalar signal, or one of n numbers.

    Args:
      value_fn: the input of that name.
      given: slopes that are known already; then nothing is evaluated.
      at: the params, at the leaves that are perturbed.
      root: the key in the state.
      scale: length of the perturbation.
      **how: `directions`, `one_sided`, `check_deterministic`.
    """
    return _quotients(value_fn, given, at, root, scale, step_count(), **how)


def _quotients_of(
    context: Context,
    value_fn: LossFunction,
    given: jax.Array | None,
    at: Leaves,
    root: jax.Array,
    scale: float | jax.Array,
    _: jax.Array,
    directions: Directions,
    one_sided: bool = False,
    check_deterministic: bool = False,
) -> jax.Array:
    count = directions.n_samples
    if given is not None:
        return known_slopes(given, count, context)
    point = base_point(context, at)
    loss = loss_function(context, value_fn, point)
    if check_deterministic:
        tree = point.tree()
        refuse_noise(value_fn(tree), value_fn(tree), f"{context.label}: value_fn")

    def evaluate(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        sample, sign = row
        direction = directions.draw(context, at, tied(root, sign), sample)
        return loss(moved(point, direction, sign * scale))

    # A loop, not 2 n copies of the model: it compiles once, and one perturbed copy lives at a time.
    losses = each(evaluate, _rows(count, one_sided, context.scalar_dtype), beside=at)
    if one_sided:
        slopes = (losses[1:] - losses[0]) / scale
    else:
        slopes = (losses[0::2] - losses[1::2]) / (2 * scale)
    slopes = saturated(slopes.astype(context.scalar_dtype))
    return unfused(slopes[0] if count == 1 else slopes)


def _rows(count: int, one_sided: bool, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    """Which sample and which sign each evaluation of a step has."""
    if one_sided:
        samples, signs = [0, *range(count)], [0.0] + [1.0] * count
    else:
        samples = [i for i in range(count) for _ in range(2)]
        signs = [1.0, -1.0] * count
    return jnp.asarray(samples), jnp.asarray(signs, dtype)


def known_slopes(given: jax.Array, count: int, context: Context) -> jax.Array:
    """Recorded slopes as the step has them; ValueError for another number of them."""
    slopes = jnp.asarray(given, context.scalar_dtype)
    if slopes.size != count:
        raise ValueError(f"`slopes` has {slopes.size} entries for {count} directions")
    return unfused(slopes.reshape(() if count == 1 else (count,)))


def _slopes_shape(
    context: Context, *_: object, directions: Directions, **how: Any
) -> jax.ShapeDtypeStruct:
    shape = () if directions.n_samples == 1 else (directions.n_samples,)
    return jax.ShapeDtypeStruct(shape, context.scalar_dtype)


def with_slopes_shape(fn: Callable[..., Any], name: str) -> Callable[..., Signal]:
    """Lifts a function that gives the slopes along `directions=`."""

    def lifted(*signals: Operand | None, **how: Any) -> Signal:
        shape = partial(_slopes_shape, **how)
        node = lift_tree(
            partial(fn, **how), name, context=True, out=shape, needs=("params", "value_fn")
        )
        return node(*signals)

    return lifted


_quotients = with_slopes_shape(_quotients_of, "difference_quotients")


def along(slopes: Signal, at: Signal, root: Signal, directions: Directions, **how: Any) -> Signal:
    """The mean of slope times direction over the samples of this step, as a tree signal.

    Args:
      slopes: one number, or one per sample.
      at: the params, at the leaves that are perturbed.
      root: the key in the state.
      directions: as the slopes were taken.
      **how: `normalize` divides each direction by its squared length; `behind` takes those of so
        many steps ago.
    """
    return _along(slopes, at, root, step_count(), directions=directions, **how)


def _along_of(
    context: Context,
    slopes: jax.Array,
    at: Leaves,
    root: jax.Array,
    _: jax.Array,
    directions: Directions,
    normalize: bool = False,
    behind: int = 0,
) -> Leaves:
    count = directions.n_samples

    def term(sample: int | jax.Array) -> Leaves:
        slope = slopes if count == 1 else slopes[sample]
        z = directions.draw(context, at, root, sample, behind)
        factor = slope / (_squared_norm(z) + 1e-16) if normalize else slope
        return z.map(lambda leaf: jnp.asarray(factor, jnp.finfo(leaf.dtype).dtype) * leaf)

    total = summed(count, term)
    return total if count == 1 else total.map(lambda leaf: leaf / count)


def _squared_norm(z: Leaves) -> jax.Array:
    parts = [jnp.sum(jnp.real(leaf) ** 2 + jnp.imag(leaf) ** 2) for leaf in z.present()]
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(())


_along = lift_tree(_along_of, "along", context=True, out=1)

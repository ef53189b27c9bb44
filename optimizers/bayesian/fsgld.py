"""Federated stochastic gradient Langevin dynamics."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Key,
    NonNegative,
    PositiveConstant,
    Sampler,
    Signal,
    flow,
    lift_tree,
    transformation,
)
from ...transforms.notation.checks import checked
from ...transforms.notation.context import Context
from ...transforms.notation.known import is_known
from ...transforms.notation.mapping import map_leaves
from ...transforms.notation.rows import mean_of_rows
from ...transforms.notation.values import Leaves
from ...transforms.objectives import bare_array, check_vector
from .sgld import langevin


@method(
    "El Mekkaoui et al. 2021, Federated Stochastic Gradient Langevin Dynamics",
    arxiv="2004.11231",
    tags=("noise", "tracked-mean"),
    learning_rate=0.1,
    small_model={"temperature": 1e-6},
    required={"means": (0.0, 0.5), "precisions": (0.5, 0.1), "shard_probs": (0.5, 0.5)},
)
@transformation()
def fsgld(
    learning_rate: optax.ScalarOrSchedule,
    means: Sequence[optax.Params],
    precisions: Sequence[optax.Params],
    shard_probs: Sequence[float] | jax.Array,
    temperature: NonNegative = 1.0,
    key: Key = 0,
    noise_fn: Sampler | None = None,
) -> Flow:
    r"""Langevin dynamics on one shard of the data after another, that knows all of them roughly.

    The likelihood of each shard j is approximated by a Gaussian :math:`q_j = N(\mu_j,
    \Lambda_j^{-1})`, and shard s is visited with probability :math:`f_s`:

    .. math::
        a_j = -\Lambda_j (\theta - \mu_j), \qquad c_s = \sum_j a_j - a_s / f_s, \qquad
        \theta \leftarrow \theta - \frac h 2 (g - c_s) + \sqrt{h T}\, \xi

    c_s is 0 in the mean over the shards, and makes steps on different shards alike. With g the
    gradient of the negative log posterior seen from shard s, of a minibatch of n of its N_s
    examples, :math:`-\nabla \log p(\theta) - \tfrac{N_s}{f_s n} \sum \nabla \log p(x | \theta)`:
    the factor :math:`1 / f_s` belongs to the gradient that comes in, and the prior into no q_j.

    Several steps may be taken on a shard before the next. The correction is unstable where h times
    the largest precision over f_s is above 2.

    Args:
      learning_rate: h; number or schedule.
      means: for each shard the tree of its mean; a number stands for all entries.
      precisions: for each shard the tree of its diagonal precision; a leaf that is a vector may
        have a matrix instead.
      shard_probs: f, a positive number for each shard; their sum is 1.
      temperature: T; 1 samples the posterior.
      key: seed or key of the noise.
      noise_fn: see `sgld`.

    Returns:
      The sampler, a transformation as any optimizer; its state is a key and a counter. Its update
      needs the extra argument `shard`, the number of the shard.

    Raises:
      ValueError: for a hyper-parameter out of range, or lists of different lengths; in update, for
        means or precisions that do not fit the params, or a shard that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fsgld
      >>> x, halves = jnp.array([1.0]), jnp.array([0.5, 0.5])
      >>> opt = fsgld(0.2, means=(0.0, 4.0), precisions=(1.0, 1.0), shard_probs=halves,
      ...             temperature=0.0)
      >>> state = opt.init(x)
      >>> [round(float(opt.update(2 * (x - mean), state, x, shard=s)[0][0]), 3)
      ...  for s, mean in enumerate((0.0, 4.0))]           # the gradient of either shard, over 1/2
      [0.2, 0.2]

    References:
      El Mekkaoui, Mesquita, Blomstedt & Kaski 2021 (arXiv 2004.11231), as in
      AaltoPML/Federated-SGLD, where the precision is a full matrix.
    """
    check_vector("fsgld", "shard_probs", shard_probs)
    shards = len(means)
    if not shards == len(precisions) == len(shard_probs):
        raise FlowError(
            f"fsgld: means, precisions and shard_probs must have one entry for each shard; they "
            f"have {shards}, {len(precisions)} and {len(shard_probs)}"
        )

    stacks: dict[Any, Leaves] = {}

    def shards_of(context: Context, params: Leaves) -> Leaves:
        """Sums and stacks, made once for all steps on params like these."""
        like = (
            params.treedef,
            tuple((getattr(x, "shape", None), getattr(x, "dtype", None)) for x in params.values),
        )
        if like not in stacks:
            centres = [_fitted(context, "means", x, params) for x in means]
            curves = [_fitted(context, "precisions", x, params) for x in precisions]
            made = params.map(partial(_summed, shards), *centres, *curves)
            if not is_known((means, precisions)):
                return made
            stacks[like] = made
        return stacks[like]

    def conducive(context: Context, params: Leaves, shard: int | jax.Array) -> Leaves:
        if is_known(shard) and not 0 <= int(shard) < shards:
            raise FlowError(f"{context.label}: shard={int(shard)} must be from 0 to {shards - 1}")
        share = 1 / jnp.asarray(shard_probs, context.scalar_dtype)[shard]

        def of_leaf(x: jax.Array, every: _Shards) -> jax.Array:
            means, precisions = jnp.asarray(every.means), jnp.asarray(every.precisions)
            total = every.pull - _curved(every.precision, x)
            own = _curved(precisions[shard], means[shard] - x)
            return total - share.astype(_real(x)) * own

        return map_leaves(of_leaf, params, shards_of(context, params))

    correction = lift_tree(conducive, "conducive_gradient", context=True, out=0)

    def step(g: Signal, params: Signal, shard: Signal) -> Signal:
        c = correction(params, bare_array(shard))
        return langevin(g - c, learning_rate, temperature, key, noise_fn)

    return flow(step)


def _real(x: jax.Array) -> jnp.dtype:
    return jnp.finfo(x.dtype).dtype


class _Shards(NamedTuple):
    """One leaf of all shards.

    Attributes:
      means: stacked.
      precisions: stacked.
      precision: their sum.
      pull: the sum of precision times mean.
    """

    means: Any
    precisions: Any
    precision: Any
    pull: Any


def _summed(shards: int, x: jax.Array, *given: Any) -> _Shards:
    """In NumPy where nothing is traced: constants of the compiled step, not a part of it."""
    xp = np if is_known(given) else jnp
    means, curves = list(given[:shards]), list(given[shards:])
    if any(p.ndim > x.ndim for p in curves):
        means = _spread(xp, means, x.shape)
        curves = [xp.eye(x.size, dtype=p.dtype) * p if p.ndim <= x.ndim else p for p in curves]
    else:
        means, curves = (_spread(xp, each, (1,) * x.ndim) for each in (means, curves))
    pulls = [_curved(p, mean, xp) for p, mean in zip(curves, means, strict=True)]
    return _Shards(
        xp.stack(means), xp.stack(curves), sum(curves[1:], curves[0]), sum(pulls[1:], pulls[0])
    )


def _spread(xp: Any, values: Sequence[Any], shape: tuple[int, ...]) -> list[Any]:
    """Arrays as large as each other, and no larger: of numbers no array of all entries is made."""
    common = np.broadcast_shapes(shape, *(value.shape for value in values))
    return [xp.broadcast_to(value, common) for value in values]


def _curved(precision: jax.Array, away: jax.Array, xp: Any = jnp) -> jax.Array:
    """Precision times distance, of a diagonal or of a matrix."""
    if precision.ndim <= away.ndim:
        return precision * away
    return precision @ away if xp is np else jnp.matmul(precision, away, precision="highest")


def _fitted(context: Context, name: str, given: Any, params: Leaves) -> Leaves:
    """One shard's tree with leaves like the params; FlowError where it is none."""
    if jnp.ndim(given) == 0 if not isinstance(given, dict | list | tuple) else False:
        return params.map(lambda x: _array(given, _real(x)))
    try:
        leaves = Leaves.up_to(params.treedef, given)
    except (ValueError, TypeError, KeyError) as error:
        raise FlowError(f"{context.label}: {name} must be trees like the params: {error}") from None

    def fitted(x: jax.Array, value: Any) -> Any:
        shape, square = jnp.shape(value), (*x.shape, *x.shape)
        if shape not in ((), x.shape) and not (
            name == "precisions" and x.ndim == 1 and shape == square
        ):
            raise FlowError(
                f"{context.label}: {name} has a leaf of shape {shape} for a param of shape "
                f"{x.shape}"
            )
        return _array(value, _real(x) if name == "precisions" else x.dtype)

    return params.map(fitted, leaves)


def _array(value: Any, dtype: DTypeLike) -> Any:
    return np.asarray(value, dtype) if is_known(value) else jnp.asarray(value, dtype)


@checked()
def gaussian_shard_approximation(
    samples: optax.Params, regularization: PositiveConstant = 1e-6
) -> tuple[Any, Any]:
    """Mean and diagonal precision of samples, such as those of a chain on one shard's likelihood.

    Args:
      samples: a tree of arrays with the samples on the leading axis.
      regularization: added to the variance, whose inverse is the precision.

    Returns:
      Two trees without that axis, for one entry each of `means` and `precisions` of `fsgld`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import gaussian_shard_approximation
      >>> mean, precision = gaussian_shard_approximation(jnp.array([[1.0], [3.0], [2.0]]))
      >>> float(mean[0]), round(float(precision[0]), 2)
      (2.0, 1.5)
    """
    mean = jax.tree.map(mean_of_rows, samples)
    precision = jax.tree.map(lambda x: 1 / (jnp.var(x, axis=0) + regularization), samples)
    return mean, precision

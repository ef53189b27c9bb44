"""How many examples a gradient should be the mean of, from the gradients of single ones."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...transforms import FlowError, PositiveConstant, checked
from ...transforms.notation.roots import balanced
from ...transforms.notation.values import working


class BatchTest(NamedTuple):
    """What a test gives.

    Attributes:
      next_batch_size: at least the present one; a whole number in floating point, maybe infinite.
      variance: what the test compares, see there.
      grad_norm_squared: of the mean gradient, over all leaves.
    """

    next_batch_size: jax.Array
    variance: jax.Array
    grad_norm_squared: jax.Array


class _Batch(NamedTuple):
    """Gradients of examples, as matrices (examples, entries) in units of their largest entry."""

    leaves: list[jax.Array]
    means: list[jax.Array]
    unit: jax.Array
    size: Any
    axis_name: str | tuple[str, ...] | None

    @property
    def norm_squared(self) -> jax.Array:
        return self.total(jnp.sum(jnp.abs(mean) ** 2) for mean in self.means)

    def total(self, terms: Iterable[jax.Array]) -> jax.Array:
        """Of numbers of the leaves, which may be of several dtypes."""
        return balanced([self.number(term) for term in terms])

    def number(self, value: Any) -> jax.Array:
        """In the widest precision of the leaves."""
        return jnp.asarray(value, self.unit.dtype)

    def variance(self, values: jax.Array) -> jax.Array:
        """Of each column of (examples, ...), with divisor b - 1."""
        inside = jnp.var(values, axis=0, ddof=1)
        if self.axis_name is None:
            return inside
        mean = jnp.mean(values, axis=0)
        square, centre = jax.lax.pmean((jnp.abs(mean) ** 2, mean), self.axis_name)
        return jax.lax.pmean(inside, self.axis_name) + square - jnp.abs(centre) ** 2

    def result(self, quotient: jax.Array, variance: jax.Array, power: int) -> BatchTest:
        size = jnp.ceil(jnp.maximum(quotient, self.size))
        return BatchTest(size, variance * self.unit**power, self.norm_squared * self.unit**2)


def _batch(
    per_example_grads: optax.Params, axis_name: str | tuple[str, ...] | None, label: str
) -> _Batch:
    leaves = [working(jnp.asarray(leaf)) for leaf in jax.tree.leaves(per_example_grads)]
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) != 1 or min(sizes) < 2:
        raise FlowError(
            f"{label}: per_example_grads must have one number of examples, at least 2, on the "
            f"leading axis of every leaf, got {sorted(sizes)}"
        )
    widest = max((jnp.finfo(leaf.dtype).dtype for leaf in leaves), key=lambda d: d.itemsize)
    maxima = [jnp.max(jnp.abs(leaf), initial=0.0).astype(widest) for leaf in leaves]
    largest = jnp.stack(maxima).max()
    size: Any = sizes.pop()
    if axis_name is not None:
        largest = jax.lax.pmax(largest, axis_name)
        size = size * jax.lax.psum(1, axis_name)
    unit = jnp.where(largest == 0, 1.0, largest)
    flat = [(leaf / unit.astype(leaf.dtype)).reshape(leaf.shape[0], -1) for leaf in leaves]
    means = [jnp.mean(leaf, axis=0) for leaf in flat]
    if axis_name is not None:
        means = jax.lax.pmean(means, axis_name)
    return _Batch(flat, means, unit, size, axis_name)


def _quotient(variance: jax.Array, square: jax.Array) -> jax.Array:
    """Their quotient; nothing asked for where nothing varies."""
    return variance / jnp.where(variance == 0, 1.0, square)


def _along(leaf: jax.Array, mean: jax.Array) -> jax.Array:
    """The inner product of each example's gradient with the mean."""
    return jnp.real(leaf @ jnp.conj(mean))


@checked()
def norm_test(
    per_example_grads: optax.Updates,
    eta: PositiveConstant,
    axis_name: str | tuple[str, ...] | None = None,
) -> BatchTest:
    """By the variance of the gradient beside its norm.

        next = ceil(max(b, V / (eta^2 |g|^2)))

    with g the mean over the b examples and V the variance of single gradients, of divisor b - 1,
    summed over all entries. The arithmetic is float32 at least, in units of the largest entry. A
    variance of zero asks for no more examples; a gradient of zero beside a variance asks for
    infinitely many; what is not finite gives NaN.

    Args:
      per_example_grads: a tree whose leaves have the examples, at least two, on their leading axis.
      eta: how large the error of the mean may be, beside its norm.
      axis_name: axis or axes of a `jax.shard_map` or `jax.vmap` whose members each have as many
        examples of their own; variances then are the mean of the members' plus that between them.

    Returns:
      The batch size to be, V and |g|^2.

    Raises:
      ValueError: for fewer than two examples, or another argument out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import norm_test
      >>> grads = {"w": jnp.array([[1.0], [2.0], [3.0], [4.0]])}
      >>> [round(float(x), 3) for x in norm_test(grads, eta=0.2)]
      [7.0, 1.667, 6.25]

    References:
      Lau, Liu & Kolar 2024, AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods
      (arXiv 2402.11215), and the authors' code, timlautk/AdAdaGrad.
    """
    batch = _batch(per_example_grads, axis_name, "norm_test")
    variance = batch.total(jnp.sum(batch.variance(leaf)) for leaf in batch.leaves)
    return batch.result(
        _quotient(variance, batch.number(eta) ** 2 * batch.norm_squared), variance, 2
    )


@checked()
def inner_product_test(
    per_example_grads: optax.Updates,
    theta: PositiveConstant,
    axis_name: str | tuple[str, ...] | None = None,
) -> BatchTest:
    """By the variance of the gradients along their mean; else as `norm_test`.

        next = ceil(max(b, V / (theta^2 |g|^4)))

    with V the sum over leaves of the variance of <g_i, g>.

    Args:
      per_example_grads, axis_name: see `norm_test`.
      theta: how large the error along the mean may be, beside its norm.

    Returns:
      The batch size to be, V and |g|^2.

    Raises:
      ValueError: see `norm_test`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import inner_product_test
      >>> grads = {"w": jnp.array([[1.0, 9.0], [2.0, -9.0], [3.0, 9.0], [4.0, -9.0]])}
      >>> [round(float(x), 3) for x in inner_product_test(grads, theta=0.2)]
      [7.0, 10.417, 6.25]

    References:
      Bollapragada, Byrd & Nocedal 2018, Adaptive Sampling Strategies for Stochastic Optimization;
      leaf by leaf as in the code of `norm_test`.
    """
    batch = _batch(per_example_grads, axis_name, "inner_product_test")
    return batch.result(*_inner_product(batch, theta), 4)


def _inner_product(batch: _Batch, theta: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    pairs = zip(batch.leaves, batch.means, strict=True)
    variance = batch.total(batch.variance(_along(leaf, mean)) for leaf, mean in pairs)
    return _quotient(variance, batch.number(theta) ** 2 * batch.norm_squared**2), variance


@checked()
def orthogonality_test(
    per_example_grads: optax.Updates,
    nu: PositiveConstant,
    axis_name: str | tuple[str, ...] | None = None,
) -> BatchTest:
    """By the variance of the gradients across their mean; else as `norm_test`.

        next = ceil(max(b, V / (nu^2 |g|^2)))

    with V the variance of g_i - <g_i, g> / |g|^2 g, leaf by leaf, summed over all entries.

    Args:
      per_example_grads, axis_name: see `norm_test`.
      nu: how large the error across the mean may be, beside its norm.

    Returns:
      The batch size to be, V and |g|^2.

    Raises:
      ValueError: see `norm_test`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import orthogonality_test
      >>> grads = {"w": jnp.array([[1.0, 2.0], [2.0, -2.0], [3.0, 2.0], [4.0, -2.0]])}
      >>> [round(float(x), 3) for x in orthogonality_test(grads, nu=0.2)]
      [22.0, 5.333, 6.25]

    References:
      See `inner_product_test`. Between members the code subtracts the square of the sum of the
      mean's entries; here each entry's square is, by the law of total variance.
    """
    batch = _batch(per_example_grads, axis_name, "orthogonality_test")
    return batch.result(*_orthogonality(batch, nu), 2)


def _orthogonality(batch: _Batch, nu: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    def across(leaf: jax.Array, mean: jax.Array) -> jax.Array:
        square = jnp.sum(jnp.abs(mean) ** 2)
        share = leaf @ jnp.conj(mean) / jnp.where(square == 0, 1.0, square)
        return leaf - share[:, None] * mean[None]

    pairs = zip(batch.leaves, batch.means, strict=True)
    variance = batch.total(jnp.sum(batch.variance(across(leaf, mean))) for leaf, mean in pairs)
    return _quotient(variance, batch.number(nu) ** 2 * batch.norm_squared), variance


@checked()
def augmented_inner_product_test(
    per_example_grads: optax.Updates,
    theta: PositiveConstant,
    nu: PositiveConstant,
    axis_name: str | tuple[str, ...] | None = None,
) -> BatchTest:
    """`inner_product_test` and `orthogonality_test`, whichever asks for more.

    Args:
      per_example_grads, axis_name: see `norm_test`.
      theta: see `inner_product_test`.
      nu: see `orthogonality_test`.

    Returns:
      The batch size to be, the variance of the test that asks for more, and |g|^2.

    Raises:
      ValueError: see `norm_test`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import augmented_inner_product_test
      >>> grads = {"w": jnp.array([[1.0, 2.0], [2.0, -2.0], [3.0, 2.0], [4.0, -2.0]])}
      >>> [round(float(x)) for x in augmented_inner_product_test(grads, theta=0.1, nu=1.0)]
      [27, 10, 6]

    References:
      See `inner_product_test`.
    """
    batch = _batch(per_example_grads, axis_name, "augmented_inner_product_test")
    along, across = _inner_product(batch, theta), _orthogonality(batch, nu)
    first = batch.result(*along, 4)
    second = batch.result(*across, 2)
    more = along[0] >= across[0]
    return BatchTest(*(jnp.where(more, a, b) for a, b in zip(first, second, strict=True)))


@checked()
def coordinate_norm_test(
    per_example_grads: optax.Updates,
    eta: PositiveConstant,
    axis_name: str | tuple[str, ...] | None = None,
) -> BatchTest:
    """By the entry whose variance is largest beside its gradient; else as `norm_test`.

        next = ceil(max(b, max over entries of V_j / (eta^2 g_j^2)))

    The test that goes with AdaGrad entry by entry, as `norm_test` does with `adagrad_norm`.

    Args:
      per_example_grads, axis_name: see `norm_test`.
      eta: how large the error of an entry may be, beside its size.

    Returns:
      The batch size to be, the sum of all V_j, and |g|^2.

    Raises:
      ValueError: see `norm_test`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import coordinate_norm_test
      >>> grads = {"w": jnp.array([[1.0, 9.0], [2.0, 9.0], [3.0, 9.0], [4.0, 9.0]])}
      >>> [round(float(x), 3) for x in coordinate_norm_test(grads, eta=0.2)]
      [7.0, 1.667, 87.25]

    References:
      Lau, Liu & Kolar 2024 (arXiv 2402.11215); it is in the paper only, not in the code.
    """
    batch = _batch(per_example_grads, axis_name, "coordinate_norm_test")
    variances = [batch.variance(leaf) for leaf in batch.leaves]
    pairs = zip(variances, batch.means, strict=True)
    quotients = [_quotient(v, jnp.abs(mean) ** 2) for v, mean in pairs]
    largest = jnp.stack([batch.number(jnp.max(q, initial=0.0)) for q in quotients]).max()
    variance = batch.total(map(jnp.sum, variances))
    return batch.result(largest / batch.number(eta) ** 2, variance, 2)

"""Random directions in the space of the params: redrawn from a key, never stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..notation import draws
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Fraction, Period, Sampler
from ..notation.mapping import map_leaves
from ..notation.sharding import resharded
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.values import MISSING, Leaves, either

_MASKS = 0x6D61736B
"""Folded into the key for masks, so that they do not depend on the directions."""


def _normal(key: jax.Array, leaf: jax.Array) -> jax.Array:
    return draws.normal_in_place(key, leaf.shape, jnp.finfo(leaf.dtype).dtype)


def _rademacher(key: jax.Array, leaf: jax.Array) -> jax.Array:
    return draws.rademacher_in_place(key, leaf.shape, jnp.finfo(leaf.dtype).dtype)


Distribution = Literal["gaussian", "rademacher", "sphere"]
DIRECTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "gaussian": _normal,
    "rademacher": _rademacher,
    "sphere": _normal,
}
"""Distributions with the identity as covariance; "sphere": of length sqrt(number of entries)."""


@checked()
def draw_leaf(distribution: str, key: jax.Array, index: int, leaf: jax.Array) -> jax.Array:
    """The entries of a direction at one leaf; a complex leaf has two independent parts.

    A function of arrays.

    Args:
      distribution: one of `DIRECTIONS`; of the sphere, before it is normalised.
      key: key of the whole direction.
      index: the leaf's place in the whole tree.
      leaf: an array of the shape, dtype and sharding.
    """
    return _drawn(distribution, draws.fold_in(key, index), leaf)


def _drawn(distribution: str, key: jax.Array, leaf: jax.Array) -> jax.Array:
    draw = DIRECTIONS[distribution]
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        drawn = jax.lax.complex(*(draw(k, leaf) for k in draws.split(key)))
    else:
        drawn = draw(key, leaf)
    return resharded(drawn, leaf)


@dataclass(frozen=True)
class SparseDirections:
    """A direction of which a random mask leaves few entries; see `sparse_directions`."""

    sampler: Sampler | None
    sparsity: Any
    update_interval: Any
    mask_fn: Sampler | None
    normal_threshold: bool

    def __call__(self, key: jax.Array, count: jax.Array, params: optax.Params) -> optax.Params:
        """A sampler; called by itself, its mask is drawn from the key that it is given."""
        like = Leaves.of(params)
        drawn = Directions("gaussian", self, 1)
        context = Context("sparse_directions", like.treedef, like, {}, count, jnp.float32, like)
        dense = drawn.dense(context, like, key, count, self.sampler)
        return self.masked(context, dense, key, count).tree()

    def masked(
        self, context: Context, direction: Leaves, root: jax.Array, count: jax.Array
    ) -> Leaves:
        """The direction times the mask of this period."""
        period = (count - 1) // self.update_interval
        key = draws.fold_in(draws.fold_in(root, _MASKS), period)
        if self.mask_fn is not None:
            first = 1 + period * self.update_interval
            mask = Leaves.up_to(direction.treedef, self.mask_fn(key, first, _params(context)))
            return direction.map(lambda z, keep: z * jnp.asarray(keep, z.dtype), mask)
        rate = self.sparsity(count - 1) if callable(self.sparsity) else self.sparsity

        def kept(own_key: jax.Array, z: jax.Array, own: float | jax.Array = rate) -> jax.Array:
            return self._keep(own_key, z, own)

        structure: jax.tree_util.PyTreeDef = jax.tree.structure(rate)
        if structure == jax.tree.structure(0.0):
            return _with_keys(kept, key, direction)
        return _with_keys(kept, key, direction, Leaves.up_to(direction.treedef, rate).values)

    def _keep(self, key: jax.Array, z: jax.Array, rate: float | jax.Array) -> jax.Array:
        draw = draws.normal_in_place if self.normal_threshold else draws.uniform_in_place
        drawn = draw(key, z.shape, jnp.finfo(z.dtype).dtype)
        return jnp.where(resharded(drawn, z) < jnp.asarray(rate, drawn.dtype), 0, z)


@checked()
def sparse_directions(
    sampler: Sampler | None = None,
    sparsity: Fraction | optax.Params = 0.9,
    update_interval: Period = 1,
    mask_fn: Sampler | None = None,
    normal_threshold: bool = False,
) -> SparseDirections:
    """Directions with few entries, as the `sampler` of any zeroth-order or forward-mode method.

    A function of numbers.

        z~ = k * z,    k = 0 with probability `sparsity`, else 1

    The mask k is drawn anew at t = 1, 1 + r, 1 + 2r, ... and redrawn from its key in between.

    Args:
      sampler: `(key, count, params) -> tree` of the dense directions z; default the method's; count
        is 1 at the first step.
      sparsity: probability that an entry is left out: a number, a schedule, or a tree of numbers
        like the params (see `magnitude_sparsity`).
      update_interval: r, steps for which a mask stays.
      mask_fn: `(key, count, params) -> tree` of 0 and 1, in place of the random mask; count is
        that of the step at which the mask began to hold, 1 at first.
      normal_threshold: leave out an entry where a standard normal draw is below `sparsity`, as the
        authors' code does: the share left out is then Phi(sparsity), 0.816 for 0.9.

    Example:
      >>> from gradchain.optimizers import zo_adam
      >>> from gradchain.transforms.zeroth_order import sparse_directions
      >>> opt = zo_adam(1e-3, sampler=sparse_directions(sparsity=0.5))
    """
    return SparseDirections(sampler, sparsity, update_interval, mask_fn, normal_threshold)


@checked()
def magnitude_sparsity(params: optax.Params, sparsity: float) -> optax.Params:
    """Rates for `sparse_directions` by magnitude: the share of small entries in each leaf.

    A selector of leaves.

    A function of params.

    An entry is small if its magnitude is at most the `sparsity`-quantile over all leaves.

    Args:
      params: the params before training.
      sparsity: share of small entries overall, in [0, 1].

    Returns:
      A tree of numbers like the params.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.zeroth_order import magnitude_sparsity
      >>> rates = magnitude_sparsity({"a": jnp.array([0.1, 0.2]), "b": jnp.array([3.0, 4.0])}, 0.5)
      >>> {name: float(rate) for name, rate in rates.items()}
      {'a': 1.0, 'b': 0.0}
    """
    sizes = [jnp.abs(leaf).ravel() for leaf in jax.tree.leaves(params)]
    threshold = jnp.quantile(jnp.concatenate(sizes), sparsity)
    return jax.tree.map(lambda leaf: jnp.mean(jnp.abs(leaf) <= threshold), params)


@dataclass(frozen=True)
class Directions:
    """How the directions of a method are drawn.

    Attributes:
      distribution: one of `DIRECTIONS`.
      sampler: `(key, count, params) -> tree`, or `SparseDirections`, in place of it.
      n_samples: directions at a step.
    """

    distribution: str
    sampler: Any
    n_samples: int

    def draw(
        self,
        context: Context,
        like: Leaves,
        root: jax.Array,
        sample: int | jax.Array = 0,
        behind: int = 0,
    ) -> Leaves:
        """The direction of this step, or of an earlier one: the same whenever it is asked for.

        Args:
          context: what is known.
          like: which leaves, and their shapes.
          root: the key in the state.
          sample: which of the `n_samples`.
          behind: of how many steps ago.
        """
        count = context.step - behind
        key = draws.fold_in(root, count - 1)
        if self.n_samples > 1:
            key = draws.fold_in(key, sample)
        sparse = self.sampler if isinstance(self.sampler, SparseDirections) else None
        sampler = self.sampler if sparse is None else sparse.sampler
        direction = self.dense(context, like, key, count, sampler)
        return direction if sparse is None else sparse.masked(context, direction, root, count)

    def dense(
        self,
        context: Context,
        like: Leaves,
        key: jax.Array,
        count: jax.Array,
        sampler: Sampler | None,
    ) -> Leaves:
        """The direction of a key, before any mask."""
        if sampler is not None:
            return given_direction(like, sampler(key, count, _params(context)), context)
        direction = draw_leaves(self.distribution, key, like)
        return _on_sphere(direction) if self.distribution == "sphere" else direction


def draw_leaves(distribution: str, key: jax.Array, like: Leaves) -> Leaves:
    """The entries of a direction, each leaf by `draw_leaf`; others than arrays stay.

    A function of arrays.

    Args:
      distribution, key: see `draw_leaf`.
      like: which leaves, and their shapes.
    """
    return _with_keys(lambda own, leaf: _drawn(distribution, own, leaf), key, like)


def _with_keys(
    fn: Callable[..., Any], key: jax.Array, tree: Leaves, *columns: Sequence[Any]
) -> Leaves:
    """A function of a leaf, and of the key folded with the leaf's place in the whole tree."""
    is_array = [hasattr(leaf, "dtype") for leaf in tree.values]
    arrays = (x if there else MISSING for x, there in zip(tree.values, is_array, strict=True))
    others = (Leaves(column, tree.treedef) for column in columns)
    places = np.flatnonzero(is_array).astype(np.int32)
    keys = draws.folded(key, places)
    made = map_leaves(
        fn, Leaves(arrays, tree.treedef, tree.stacks), *others, stack=keys, many=draws.MANY
    )
    return made if all(is_array) else either(made, tree)


def given_direction(
    like: Leaves, tree: optax.Params, context: Context, name: str = "sampler"
) -> Leaves:
    """What a sampler gave, at the leaves of `like` and in their dtypes; FlowError if it misfits."""
    try:
        given = Leaves.up_to(like.treedef, tree)
        return like.map(lambda leaf, z: jnp.asarray(z, leaf.dtype).reshape(leaf.shape), given)
    except (TypeError, ValueError, KeyError) as error:
        raise FlowError(
            f"{context.label}: {name} must return a tree like the params: {error}"
        ) from error


def _on_sphere(direction: Leaves) -> Leaves:
    leaves = direction.present()
    entries = sum(leaf.size * (1 + jnp.iscomplexobj(leaf)) for leaf in leaves)
    if not entries:
        return direction
    squares = [jnp.sum(jnp.real(leaf) ** 2 + jnp.imag(leaf) ** 2) for leaf in leaves]
    scale = jnp.sqrt(entries / sum(squares[1:], squares[0]))
    return direction.map(lambda leaf: leaf * scale.astype(jnp.finfo(leaf.dtype).dtype))


def _params(context: Context) -> optax.Params | None:
    return None if context.params is None else context.params.tree()


@checked()
def draw_direction(like: Signal, root: Signal, directions: Directions) -> Signal:
    """The direction of this step as a tree signal, for methods that compute with it.

    A function of signals.

    Args:
      like: a tree signal: which leaves, and their shapes.
      root: the key in the state; see `stored_key`.
      directions: how it is drawn.
    """

    def drawn(context: Context, like: Leaves, root: jax.Array, _: jax.Array) -> Leaves:
        return directions.draw(context, like, root)

    return lift_tree(drawn, directions.distribution, context=True, out=0)(like, root, step_count())

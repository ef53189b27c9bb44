"""Random draws, whose key is part of the state."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation import draws
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Key, Period, Sampler
from ..notation.mapping import map_leaves
from ..notation.sharding import resharded
from ..notation.signal import Signal
from ..notation.steps import delay, step_count
from ..notation.values import Leaves


def typed_key(key: Key) -> jax.Array:
    """A typed key, from a seed, raw data or a typed key; nothing may be made of it while building.

    Args:
      key: an integer of any kind, key data as in states (32-bit integers), or a typed key of any
        implementation.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if _is_seed(key):
        return jax.random.key(key)
    return jax.random.wrap_key_data(jax.lax.bitcast_convert_type(jnp.asarray(key), jnp.uint32))


def _is_seed(key: Key) -> bool:
    if isinstance(key, bool):
        return False
    return isinstance(key, int) or (_is_integer(key) and jnp.ndim(key) == 0)


def _is_integer(key: Key) -> bool:
    return hasattr(key, "dtype") and bool(jnp.issubdtype(key.dtype, jnp.integer))


def check_key(key: Key) -> None:
    """Raises FlowError for what is neither a seed nor one key."""
    is_key = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_data = _is_integer(key) and jnp.ndim(key) == 1
    if not (_is_seed(key) or is_data or (is_key and jnp.ndim(key) == 0)):
        raise FlowError(
            f"key={key!r} must be a seed (an integer), jax.random.key(seed), or the data of one key"
        )


def _key_bits(key: Key) -> jax.Array:
    """What states hold of a key: its data as signed integers.

    Wrappers that blend two states by arithmetic, as `optax.contrib.sam`, leave signed integers what
    they are, and turn unsigned ones into others.
    """
    return jax.lax.bitcast_convert_type(jax.random.key_data(typed_key(key)), jnp.int32)


@checked()
def random_key(key: Key | Signal, every: Period = 1) -> Signal:
    """A signal that is a fresh key at every step; the key it is derived from is in the state.

    A function of signals.

    The key is made in `init`: building a transformation touches no device.

    Args:
      key: seed, key data or typed key; a signal is a fresh key already.
      every: for how many steps a key stays the same.
    """
    if isinstance(key, Signal):
        return key

    def fold_in(
        context: Context, root: jax.Array, _: jax.Array, every: int | jax.Array
    ) -> jax.Array:
        return draws.fold_in(root, _first_of(context.step - 1, every))

    lifted = lift_tree(fold_in, "fold_in", context=True, out=0)
    return lifted(stored_key(key), step_count(), every)


def _first_of(count: jax.Array, every: int | jax.Array) -> jax.Array:
    """The first of as many counts."""
    return count if isinstance(every, int) and every == 1 else count - count % every


def stored_key(key: Key) -> Signal:
    """A signal that is the same typed key at every step; its bits are in the state.

    A function of signals.

    Args:
      key: seed, key data or typed key.
    """
    check_key(key)
    is_typed = jnp.issubdtype(getattr(key, "dtype", jnp.int32), jax.dtypes.prng_key)
    from_bits = partial(_from_bits, impl=jax.random.key_impl(key) if is_typed else None)
    root = delay(partial(_key_bits, key), name="key")
    root << root

    def out(context: Context, bits: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(from_bits, bits)

    return lift_tree(from_bits, "key", out=out)(root)


def _from_bits(bits: jax.Array, impl: Any) -> jax.Array:
    data = jax.lax.bitcast_convert_type(bits, jnp.uint32)
    return jax.random.wrap_key_data(data, impl=impl)


@checked()
def fold_key(key: Signal, number: int) -> Signal:
    """Another fresh key, for a second kind of draws from one key in the state.

    A function of signals.
    """
    folded = lift_tree(lambda k: draws.fold_in(k, number), "fold_key", out=0)
    return folded(key)


def rademacher(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Entries +1 and -1 with equal probability."""
    return draws.rademacher(key, shape, dtype)


def gaussian(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Entries of the standard normal distribution."""
    return draws.normal(key, shape, dtype)


@checked()
def exponential(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Entries of the exponential distribution with mean 1.

    A function of arrays.
    """
    return draws.exponential(key, shape, dtype)


Distribution = Literal["rademacher", "gaussian"]
DISTRIBUTIONS: dict[Distribution, Callable[..., Any]] = {
    "rademacher": rademacher,
    "gaussian": gaussian,
}


@checked()
def draw_leaves(
    like: Signal,
    key: Key,
    draw: Callable[[Any, Any], Any],
    sampler: Sampler | None = None,
    name: str = "draw",
    every: Period = 1,
) -> Signal:
    """A signal whose leaves are drawn anew at every step, in shapes that `draw` decides.

    A function of signals.

    Args:
      like: a tree signal.
      key: seed, key data or typed key, kept in the state; or a `random_key` signal.
      draw: `(key, leaf) -> array`.
      sampler: `(key, count, params) -> tree` in place of `draw`; count is 0 at the first step.
      name: what the node is called.
      every: for how many steps a draw stays the same; it is made again at each, and kept nowhere.
    """

    def drawn(
        context: Context, tree: Leaves, fresh: jax.Array, _: jax.Array, every: int | jax.Array
    ) -> Leaves:
        return drawn_leaves(context, tree, fresh, draw, sampler, every)

    def out(
        context: Context, tree: Leaves, fresh: jax.ShapeDtypeStruct, *_: int | jax.ShapeDtypeStruct
    ) -> Leaves:
        return tree.map(lambda leaf: jax.eval_shape(draw, fresh, leaf))

    lifted = lift_tree(drawn, name, context=True, out=out)
    return lifted(like, random_key(key, every), step_count(), every)


def drawn_leaves(
    context: Context,
    tree: Leaves,
    fresh: jax.Array,
    draw: Callable[[Any, Any], Any],
    sampler: Sampler | None,
    every: int | jax.Array = 1,
) -> Leaves:
    """What `draw` gives for each leaf, or the sampler for all; see `draw_leaves`."""
    if sampler is not None:
        shapes = tree.map(lambda leaf: jax.eval_shape(draw, fresh, leaf))
        params = None if context.params is None else context.params.tree()
        count = _first_of(context.step - 1, every)
        given = Leaves.up_to(tree.treedef, sampler(fresh, count, params))
        return shapes.map(lambda leaf, x: jnp.asarray(x, leaf.dtype), given)
    return with_a_key_each(draw, fresh, tree)


def with_a_key_each(draw: Callable[[Any, Any], Any], key: jax.Array, tree: Leaves) -> Leaves:
    """What `draw` gives for each leaf, with a key of its own.

    A function of arrays.

    Args:
      draw: `(key, leaf) -> array`.
      key: which is split.
      tree: the leaves.
    """
    keys = draws.split(key, max(len(tree), 1))
    return map_leaves(draw, tree, stack=keys, many=draws.MANY)


def drawn_like(
    context: Context,
    tree: Leaves,
    fresh: jax.Array,
    distribution: Distribution,
    sampler: Sampler | None,
) -> Leaves:
    """Leaves of random entries, or those that the sampler gives; see `draw_like`."""
    if sampler is not None:
        params = None if context.params is None else context.params.tree()
        given = Leaves.up_to(tree.treedef, sampler(fresh, context.step - 1, params))
        return tree.map(lambda leaf, x: jnp.asarray(x, leaf.dtype), given)
    draw = DISTRIBUTIONS[distribution]
    return with_a_key_each(lambda k, leaf: draw(k, leaf.shape, leaf.dtype), fresh, tree)


@checked()
def draw_like(
    like: Signal,
    key: Key | Signal,
    distribution: Distribution = "gaussian",
    sampler: Sampler | None = None,
) -> Signal:
    """A signal of random entries in the shapes of `like`, drawn anew at every step.

    A function of signals.

    Args:
      like: a tree signal.
      key: seed, key data or typed key, kept in the state; or a `random_key` signal.
      distribution: "rademacher" or "gaussian".
      sampler: `(key, count, params) -> tree` in place of the distribution; count is 0 at the
        first step.
    """

    def drawn(context: Context, tree: Leaves, fresh: jax.Array, _: jax.Array) -> Leaves:
        return drawn_like(context, tree, fresh, distribution, sampler)

    lifted = lift_tree(drawn, distribution, context=True, out=lambda c, tree, *_: tree)
    fresh = key if isinstance(key, Signal) else random_key(key)
    return lifted(like, fresh, step_count())


@checked()
def draw_scalar(
    key: Key, distribution: Callable[..., Any] = gaussian, sampler: Sampler | None = None
) -> Signal:
    """A scalar signal drawn anew at every step, one for the whole tree.

    A function of signals.

    Args:
      key: seed, key data or typed key; kept in the state.
      distribution: `(key, shape, dtype) -> draw`: `gaussian`, `rademacher` or `exponential`.
      sampler: `(key, count, params) -> scalar` in place of the distribution; count is 0 at the
        first step.
    """

    def drawn(context: Context, fresh: jax.Array, _: jax.Array) -> jax.Array:
        if sampler is None:
            return distribution(fresh, (), context.scalar_dtype)
        params = None if context.params is None else context.params.tree()
        return jnp.asarray(sampler(fresh, context.step - 1, params), context.scalar_dtype)

    lifted = lift_tree(drawn, "draw_scalar", context=True, out="scalar")
    return lifted(random_key(key), step_count())


@checked()
def drawn_start(
    scale: float | jax.Array,
    key: Key,
    distribution: Distribution = "gaussian",
    sampler: Sampler | None = None,
) -> Callable[[Leaves], Leaves]:
    """What a delay starts at, as its `start`: random entries times a scale.

    Part of the notation.

    Args:
      scale: multiplier of the draws.
      key: seed, key data or typed key.
      distribution: "rademacher" or "gaussian".
      sampler: `(key, count, params) -> tree` in place of the distribution; count is 0.
    """
    draw = DISTRIBUTIONS[distribution]
    check_key(key)

    def start(like: Leaves) -> Leaves:
        fresh = typed_key(key)
        if sampler is not None and len(like):
            given = Leaves.up_to(like.treedef, sampler(fresh, 0, like.tree()))
            drawn = like.map(lambda leaf, x: jnp.asarray(x, leaf.dtype), given)
        else:
            drawn = with_a_key_each(lambda k, leaf: draw(k, leaf.shape, leaf.dtype), fresh, like)
        # a draw lies on every device in full
        scaled = drawn.map(lambda leaf: (scale * leaf).astype(leaf.dtype))
        return scaled.map(resharded, like)

    start.of_tree = True  # type: ignore[attr-defined]
    return start

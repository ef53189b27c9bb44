"""Random draws, whose key is part of the state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.context import Context
from ..notation.functions import lift_tree
from ..notation.signal import Signal
from ..notation.steps import delay, step_count
from ..notation.values import Leaves

Sampler = Callable[[Any, Any, Any], Any]
"""`(key, count, params) -> draws`: count is the number of updates made before."""


def as_key(key: Any) -> jax.Array:
    """Raw key data, as it is kept in states, from a seed, raw data or a typed key."""
    if isinstance(key, int):
        return jax.random.key_data(jax.random.key(key))
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(key)
    return jnp.asarray(key, jnp.uint32)


def random_key(key: Any) -> Signal:
    """A signal that is a fresh key at every step; the key it is derived from is in the state.

    Args:
      key: seed, raw key or typed key; a signal is a fresh key already.
    """
    if isinstance(key, Signal):
        return key
    root = delay(as_key(key), name="key")
    root << root
    return lift_tree(_fold_in, "fold_in", context=True, out=_same_key)(root, step_count())


def fold_key(key: Signal, number: int) -> Signal:
    """Another fresh key, for a second kind of draws from one key in the state."""
    folded = lift_tree(lambda k: jax.random.fold_in(k, number), "fold_key", out=0)
    return folded(key)


def _fold_in(context: Context, root: Any, _: Any) -> Any:
    return jax.random.fold_in(root, context.step - 1)


def _same_key(context: Context, root: Any, _: Any) -> Any:
    return root


def rademacher(key: Any, shape: Any, dtype: Any) -> Any:
    """Entries +1 and -1 with equal probability."""
    return jax.random.rademacher(key, shape, dtype)


def gaussian(key: Any, shape: Any, dtype: Any) -> Any:
    """Entries of the standard normal distribution."""
    return jax.random.normal(key, shape, dtype)


def exponential(key: Any, shape: Any, dtype: Any) -> Any:
    """Entries of the exponential distribution with mean 1."""
    return jax.random.exponential(key, shape, dtype)


DISTRIBUTIONS = {"rademacher": rademacher, "gaussian": gaussian}


def draw_leaves(
    like: Signal,
    key: Any,
    draw: Callable[[Any, Any], Any],
    sampler: Sampler | None = None,
    name: str = "draw",
) -> Signal:
    """A signal whose leaves are drawn anew at every step, in shapes that `draw` decides.

    Args:
      like: a tree signal.
      key: seed, raw key or typed key, kept in the state; or a `random_key` signal.
      draw: `(key, leaf) -> array`, of which only shape and dtype of the leaf are to be used.
      sampler: `(key, count, params) -> tree` in place of `draw`.
      name: what the node is called.
    """

    def drawn(context: Context, tree: Leaves, fresh: Any, _: Any) -> Leaves:
        shapes = tree.map(lambda leaf: jax.eval_shape(lambda k: draw(k, leaf), fresh))
        if sampler is not None:
            params = None if context.params is None else context.params.tree()
            given = Leaves.up_to(tree.treedef, sampler(fresh, context.step - 1, params))
            return shapes.map(lambda leaf, x: jnp.asarray(x, leaf.dtype), given)
        keys = iter(jax.random.split(fresh, max(len(tree), 1)))
        return tree.map(lambda leaf: draw(next(keys), leaf))

    def out(context: Context, tree: Leaves, fresh: Any, _: Any) -> Leaves:
        example = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)[0])
        return tree.map(lambda leaf: jax.eval_shape(lambda k: draw(k, leaf), example))

    lifted = lift_tree(drawn, name, context=True, out=out)
    fresh = key if isinstance(key, Signal) else random_key(key)
    return lifted(like, fresh, step_count())


def drawn_like(
    context: Context, tree: Leaves, fresh: Any, distribution: str, sampler: Sampler | None
) -> Leaves:
    """Leaves of random entries, or those that the sampler gives; see `draw_like`."""
    if sampler is not None:
        params = None if context.params is None else context.params.tree()
        given = Leaves.up_to(tree.treedef, sampler(fresh, context.step - 1, params))
        return tree.map(lambda leaf, x: jnp.asarray(x, leaf.dtype), given)
    draw = DISTRIBUTIONS[distribution]
    keys = iter(jax.random.split(fresh, max(len(tree), 1)))
    return tree.map(lambda leaf: draw(next(keys), leaf.shape, leaf.dtype))


def draw_like(
    like: Signal, key: Any, distribution: str = "gaussian", sampler: Sampler | None = None
) -> Signal:
    """A signal of random entries in the shapes of `like`, drawn anew at every step.

    Args:
      like: a tree signal.
      key: seed, raw key or typed key, kept in the state; or a `random_key` signal.
      distribution: "rademacher" or "gaussian".
      sampler: `(key, count, params) -> tree` in place of the distribution.
    """

    def drawn(context: Context, tree: Leaves, fresh: Any, _: Any) -> Leaves:
        return drawn_like(context, tree, fresh, distribution, sampler)

    lifted = lift_tree(drawn, distribution, context=True, out=lambda c, tree, *_: tree)
    fresh = key if isinstance(key, Signal) else random_key(key)
    return lifted(like, fresh, step_count())


def draw_scalar(
    key: Any, distribution: Callable[..., Any] = gaussian, sampler: Sampler | None = None
) -> Signal:
    """A scalar signal drawn anew at every step, one for the whole tree.

    Args:
      key: seed, raw key or typed key; kept in the state.
      distribution: `(key, shape, dtype) -> draw`: `gaussian`, `rademacher` or `exponential`.
      sampler: `(key, count, params) -> scalar` in place of the distribution.
    """

    def drawn(context: Context, fresh: Any, _: Any) -> Any:
        if sampler is None:
            return distribution(fresh, (), context.scalar_dtype)
        params = None if context.params is None else context.params.tree()
        return jnp.asarray(sampler(fresh, context.step - 1, params), context.scalar_dtype)

    lifted = lift_tree(drawn, "draw_scalar", context=True, out="scalar")
    return lifted(random_key(key), step_count())


def drawn_start(
    scale: Any, key: Any, distribution: str = "gaussian", sampler: Sampler | None = None
) -> Callable[[Leaves], Leaves]:
    """What a delay starts at, as its `start`: random entries times a scale.

    Args:
      scale: multiplier of the draws.
      key: seed, raw key or typed key.
      distribution: "rademacher" or "gaussian".
      sampler: `(key, count, params) -> tree` in place of the distribution; count is 0.
    """
    draw = DISTRIBUTIONS[distribution]

    def start(like: Leaves) -> Leaves:
        fresh = as_key(key)
        if sampler is not None and len(like):
            given = Leaves.up_to(like.treedef, sampler(fresh, 0, like.tree()))
            drawn = like.map(lambda leaf, x: jnp.asarray(x, leaf.dtype), given)
        else:
            keys = iter(jax.random.split(fresh, max(len(like), 1)))
            drawn = like.map(lambda leaf: draw(next(keys), leaf.shape, leaf.dtype))
        return drawn.map(lambda leaf: (scale * leaf).astype(leaf.dtype))

    start.of_tree = True  # type: ignore[attr-defined]
    return start

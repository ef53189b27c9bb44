"""What a compressor is: a worker sends a message in place of a tree, all read what it says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from ..notation import draws
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.crowds import of_stacks
from ..notation.errors import FlowError
from ..notation.hyperparameters import Key
from ..notation.mapping import map_leaves
from ..notation.packing import choose_leaves
from ..notation.refusing import refusing
from ..notation.sharding import replicated, resharded
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.steps import step_count
from ..notation.values import Leaves, either, is_missing
from ..trees.random import random_key
from ..trees.vector import flat_size, from_vector, one_leaf, to_vector
from ..workers import axis
from ..workers.signals import exchanged

Message: TypeAlias = dict[str, jax.Array]
"""What is sent for a vector."""

Weights: TypeAlias = jax.Array | np.ndarray | Sequence[float] | Sequence[Sequence[float]]
"""One number for each worker, or a matrix of which each worker has a row."""


class Compressor(Protocol):
    """What replaces the exchange of whole trees; see `exchange`."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def exchange(
        self, signal: Signal, axis_name: str | None, weights: Weights | None, whole: Signal | None
    ) -> tuple[Signal, Signal]:
        """What the worker's message says, and the mean of what all say."""
        ...


Compression: TypeAlias = Compressor | Callable[[Any], optax.Params]
"""A compressor, or a function of whole trees, whose results are sent in full."""


@checked()
def exchange(
    signal: Signal,
    compressor: Compression,
    axis_name: str | None = None,
    *,
    weights: Weights | None = None,
    whole: Signal | None = None,
) -> tuple[Signal, Signal]:
    """Sends a signal to all workers, compressed: (what this worker's message says, their mean).

    A function of signals.

    Args:
      signal: a tree signal, each worker's own.
      compressor: one of this family, or any function from a tree to a tree of these shapes, which
        is then sent in full.
      axis_name: the axis along which the workers lie; None: there is one.
      weights: a positive number for each worker, the shares of the mean; None: equal ones. Or a
        matrix, of which each worker takes its row as it is: then the means differ.
      whole: a boolean scalar signal: where it holds, everything is sent as it is.
    """
    made = compressor if hasattr(compressor, "exchange") else of_function(compressor)
    found: tuple[Signal, Signal] = made.exchange(signal, axis_name, weights, whole)
    return found


@transformation()
def compress(compressor: Compression, axis_name: str | None = None) -> Flow:
    """What all workers' messages say in the mean; what a message leaves out is lost.

    A transformation to send signals through.

    Args:
      compressor: see `exchange`.
      axis_name: the axis along which the workers lie; None: there is one.
    """
    return flow(lambda g: exchange(g, compressor, axis_name)[1])


@refusing
@dataclass(frozen=True)
class Coded:
    """A compressor whose messages are gathered from all workers.

    Attributes:
      name: what it is called.
      encode: `(tree, key) -> message`, any tree of arrays.
      decode: `(messages, like, weights) -> tree`: the weighted mean of what messages say that are
        stacked on a leading axis; the weights sum to 1.
      key: seed or key, where the message is drawn; each worker has draws of its own.
      arguments: hyper-parameters, for tables.
    """

    name: str
    encode: Callable[[Leaves, Any], Any]
    decode: Callable[[Any, Leaves, Any], Leaves]
    key: Key | Signal | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def exchange(
        self,
        signal: Signal,
        axis_name: str | None,
        weights: Weights | None,
        whole: Signal | None,
    ) -> tuple[Signal, Signal]:
        """See `exchange`."""
        fresh = None if self.key is None else random_key(self.key)

        @of_stacks
        def run(
            context: Context, tree: Leaves, key: jax.Array | None, whole: jax.Array | None
        ) -> Leaves:
            dtype = context.scalar_dtype
            shares = shares_of(context.label, weights, axis_name, dtype, rows=True)
            if whole is None:
                return self._sent(tree, key, shares, axis_name)
            return choose_leaves(
                whole,
                lambda: sent_whole(
                    tree, shares, axis_name, weights is not None and np.ndim(weights) == 2
                ),
                lambda: self._sent(tree, key, shares, axis_name),
            )

        def sent(context: Context, tree: Leaves, key: Any, whole: Any) -> float:
            return self.message_bytes(tree)

        both = exchanged(run, self.name, axis_name, sent, workers_of(weights))(signal, fresh, whole)
        return both[0], both[1]

    def _sent(
        self, tree: Leaves, key: jax.Array | None, shares: jax.Array, axis_name: str | None
    ) -> Leaves:
        if key is not None:
            key = draws.fold_in(key, axis.worker_index(axis_name))
        message = self.encode(map_leaves(replicated, tree, most=TINY), key)
        mine = self.decode(_alone(message), tree, jnp.ones(1, shares.dtype))
        if axis_name is None:
            return paired(mine, mine, tree)
        return paired(mine, self.decode(axis.gather(message, axis_name), tree, shares), tree)

    def message_bytes(self, tree: Leaves) -> int:
        """Bytes of the message that stands for an abstract tree."""
        arrays = tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
        return axis.size_of(jax.eval_shape(self.encode, arrays, jax.random.key(0)))


def _alone(message: Any) -> Any:
    """The message as what a single worker sent."""
    if isinstance(message, Leaves):
        return map_leaves(_alone, message, most=TINY)
    return jax.tree.map(lambda x: x[None], message)


def paired(mine: Leaves, mean: Leaves, like: Leaves) -> Leaves:
    """Both trees in one, spread over devices as another is."""

    def pair(x: jax.Array, *both: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(resharded(y.astype(x.dtype), x) for y in both)

    return map_leaves(pair, like, mine, mean, most=TINY)


def sent_whole(
    tree: Leaves, shares: jax.Array, axis_name: str | None, mixed: bool = False
) -> Leaves:
    """What `exchange` gives where nothing is compressed."""
    if mixed:
        means = axis.gather(tree, axis_name).map(lambda x: summed(shares, x))
        return paired(tree, means, tree)
    if axis_name is None:
        return paired(tree, tree, tree)
    share = shares[axis.worker_index(axis_name)]
    scaled = tree.map(lambda x: x * share.astype(jnp.finfo(x.dtype).dtype))
    return paired(tree, axis.total(scaled, axis_name), tree)


def summed(shares: jax.Array, stacked: jax.Array) -> jax.Array:
    """The weighted sum over the leading axis."""
    fitted = shares.astype(jnp.finfo(stacked.dtype).dtype)
    return jnp.tensordot(fitted, stacked, axes=1, precision="highest")


def shares_of(
    label: str,
    weights: Weights | None,
    axis_name: str | None,
    dtype: DTypeLike,
    rows: bool = False,
) -> jax.Array:
    """One number for each worker, of sum 1; or, of a matrix, this worker's row."""
    count = axis.count_workers(axis_name)
    if weights is None:
        return jnp.full(count, 1 / count, dtype)
    given = jnp.asarray(weights, dtype)
    if rows and given.shape == (count, count):
        return given[axis.worker_index(axis_name)]
    if given.shape != (count,):
        raise FlowError(
            f"{label}: weights must be one number for each worker, of shape ({count},)"
            f"{', or a row of them' if rows else ''}; they have shape {given.shape}"
        )
    return given / jnp.sum(given)


def workers_of(weights: Weights | None) -> int:
    """How many workers there are, as the weights say."""
    return 1 if weights is None else len(weights)


def on_vectors(
    name: str,
    encode: Callable[[Any, Any], Any],
    decode: Callable[[Any, int, Any, Any], Any],
    per_leaf: bool,
    key: Key | Signal | None = None,
    **arguments: Any,
) -> Coded:
    """A compressor of vectors as one of trees.

    Args:
      name: what it is called.
      encode: `(vector, key) -> message`.
      decode: `(messages, length, dtype, weights) -> vector`.
      per_leaf: a message for each leaf; else one for all leaves, joined in tree order.
      key: seed or key, where the message is drawn.
      **arguments: hyper-parameters, for tables.
    """

    def encoded(tree: Leaves, key: jax.Array | None) -> Any:
        if not per_leaf:
            drawn = None if key is None else draws.fold_in(key, 0)
            return [encode(to_vector(tree), drawn)] if flat_size(tree) else []
        leaves = _with_entries(tree)
        if key is None:
            return map_leaves(
                lambda leaf: encode(to_vector(one_leaf(leaf)), None), leaves, most=TINY
            )
        numbers = np.arange(sum(not is_missing(leaf) for leaf in leaves.held))
        keys = draws.folded(key, numbers)
        return map_leaves(
            lambda key, leaf: encode(to_vector(one_leaf(leaf)), key), leaves, stack=keys, most=TINY
        )

    def decoded(messages: Any, like: Leaves, weights: jax.Array) -> Leaves:
        if not per_leaf:
            return decoded_part(messages[0], like, weights) if messages else like

        def of_leaf(message: optax.Params, leaf: jax.Array) -> Any:
            return decoded_part(message, one_leaf(leaf), weights).values[0]

        return either(map_leaves(of_leaf, messages, _with_entries(like), most=TINY), like)

    def decoded_part(message: optax.Params, part: Leaves, weights: jax.Array) -> Leaves:
        vector = jax.eval_shape(to_vector, part.map(_abstract))
        return from_vector(decode(message, vector.size, vector.dtype, weights), part)

    return Coded(name, encoded, decoded, key, {**arguments, "per_leaf": per_leaf})


def _with_entries(tree: Leaves) -> Leaves:
    return tree.only(lambda i: not is_missing(tree.held[i]) and tree.abstract(i).size > 0)


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def of_function(fn: Any) -> Coded:
    """A compressor from a function of trees, whose results are sent in full."""
    if not callable(fn):
        raise FlowError(f"compressor={fn!r} must be a compressor, or a function from tree to tree")

    def decode(messages: optax.Params, like: Leaves, weights: jax.Array) -> Leaves:
        stacked = Leaves.up_to(like.treedef, messages)

        return stacked.map(lambda x, leaf: summed(weights, x.astype(leaf.dtype)), like)

    return Coded(getattr(fn, "__name__", "compressor"), lambda tree, _: fn(tree.tree()), decode)


@checked()
def of_vectors(fn: Callable[..., Any], key: Key | Signal, per_worker: bool = False) -> Compressor:
    """A compressor from a function of the leaves, raveled and joined, whose results are sent whole.

    A compressor, for `exchange`.

    Args:
      fn: `(key, count, vector) -> vector`.
      key: seed or key of the key that it is given at each step; a signal is that key already.
      per_worker: it is `(key, count, worker, vector) -> vector`.
    """
    return _OfVectors(fn, key, per_worker)


@dataclass(frozen=True)
class _OfVectors:
    """See `of_vectors`."""

    fn: Callable[..., Any]
    key: Key | Signal
    per_worker: bool
    name: str = "compressor"

    def exchange(
        self, signal: Signal, axis_name: str | None, weights: Weights | None, whole: Signal | None
    ) -> tuple[Signal, Signal]:
        """See `exchange`."""

        def run(context: Context, tree: Leaves, key: jax.Array, t: jax.Array, whole: Any) -> Leaves:
            shares = shares_of(context.label, weights, axis_name, context.scalar_dtype)
            worker = (axis.worker_index(axis_name),) if self.per_worker else ()
            vector = to_vector(tree.map(replicated))
            found = jnp.asarray(self.fn(key, t - 1, *worker, vector), vector.dtype)
            sent = sent_whole(from_vector(found, tree), shares, axis_name)
            return (
                sent
                if whole is None
                else choose_leaves(whole, lambda: sent_whole(tree, shares, axis_name), lambda: sent)
            )

        def sent(context: Context, tree: Leaves, *_: object) -> float:
            return float(axis.size_of(tree))

        made = exchanged(run, self.name, axis_name, sent, workers_of(weights))
        both = made(signal, random_key(self.key), step_count(), whole)
        return both[0], both[1]

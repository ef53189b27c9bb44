"""Layers as matrices: gradients, inputs and cotangents of every dense or convolution layer.

A layer is a kernel with its bias. In a flow a layer signal has one matrix per layer, at the place
of the kernel, and nothing at the other leaves:

    G          [dW; db]          (fan_in [+ 1], fan_out)
    A          layer inputs      (N, fan_in [+ 1]), ones appended where there is a bias
    D          cotangents        (N, fan_out), of the mean loss

so that G = A^T D. Kernels that a scan stacks have a further axis in front of all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Positive
from ..notation.mapping import map_kinds
from ..notation.roots import norm
from ..notation.signal import Signal
from ..notation.values import MISSING, Leaves, either, is_missing
from ..workers.axis import require_axis
from .layer_data import checked_rows, found_for, has_data, refuse_unknown
from .layer_places import Layers, Place, places_of


@checked()
def layer_matrices(
    g: Signal,
    layer_inputs: Signal | None = None,
    layers: Layers = None,
    first_order: Sequence[str] = (),
) -> Signal:
    """The matrix [dW; db] of every layer, at its kernel; nothing elsewhere.

    A function of signals.

    Args:
      g: a signal like the gradient.
      layer_inputs: the input of that name: layers for which it has None are left out.
      layers: how kernels are read.
      first_order: names of layers that are left out.
    """

    def matrices(context: Context, tree: Leaves, data: optax.Params | None) -> Leaves:
        places = [p for p in places_of(tree, layers, first_order) if has_data(data, p)]
        return _at_each(_matrix, places, _kernels(tree, places), _biases(tree, places))

    def shapes(context: Context, tree: Leaves, data: Any) -> Leaves:
        return jax.eval_shape(lambda t: matrices(context, t, None), tree)

    return lift_tree(matrices, "layer_matrices", context=True, out=shapes)(g, layer_inputs)


def _kernels(tree: Leaves, places: Sequence[Place]) -> Leaves:
    """The leaves that are kernels of these layers."""
    return tree.only({place.kernel for place in places}.__contains__)


def _biases(tree: Leaves, places: Sequence[Place]) -> Leaves:
    """The biases, at the places of their kernels; None where there is none."""
    found: list[Any] = [MISSING] * len(tree)
    for place in places:
        found[place.kernel] = None if place.bias is None else tree.held[place.bias]
    return Leaves(found, tree.treedef)


def _at_each(fn: Callable[..., Any], places: Sequence[Place], *trees: Leaves) -> Leaves:
    """`fn(place, *leaves)` of every layer, at its kernel; of those that are alike together."""
    kinds: list[Place | None] = [None] * len(trees[0])
    for place in places:
        bias = None if place.bias is None else 0
        kinds[place.kernel] = replace(place, name=(), kernel=0, bias=bias)
    return map_kinds(fn, kinds, *trees)


def _matrix(place: Place, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    kernel = kernel.reshape(*place.stack, place.fan_in, place.fan_out)
    if bias is None:
        return kernel
    row = bias.reshape(*place.stack, 1, place.fan_out)
    return jnp.concatenate([kernel, row.astype(kernel.dtype)], axis=-2)


@checked()
def join_layers(matrices: Signal, g: Signal, layers: Layers = None) -> Signal:
    """The tree of the layers' matrices, and of `g` where there are none.

    A function of signals.

    Args:
      matrices: a layer signal.
      g: what the other leaves are.
      layers: how kernels are read.
    """

    def joined(matrices: Leaves, tree: Leaves) -> Leaves:
        places = [p for p in places_of(tree, layers) if not is_missing(matrices.held[p.kernel])]
        kernels = _at_each(_kernel_of, places, matrices)
        biased = [place for place in places if place.bias is not None]
        biases = _at_each(_bias_of, biased, matrices)
        at_biases = biases.moved({p.kernel: p.bias for p in biased if p.bias is not None})
        return either(kernels, at_biases, tree)

    return lift_tree(joined, "join_layers", out=1)(matrices, g)


def _kernel_of(place: Place, matrix: jax.Array) -> jax.Array:
    kernel = matrix if place.bias is None else matrix[..., :-1, :]
    return kernel.reshape(place.shape)


def _bias_of(place: Place, matrix: jax.Array) -> jax.Array:
    outputs = place.shape[len(place.shape) - place.layer.outputs :]
    return matrix[..., -1, :].reshape(*place.stack, *outputs)


@checked()
def layer_rows(
    g: Signal, layer_inputs: Signal, layer_cotangents: Signal, layers: Layers = None
) -> tuple[Signal, Signal]:
    """Inputs A and cotangents D of every layer as matrices with one row per example and position.

    A function of signals.

    Ones are appended to A where the layer has a bias. The A of a convolution is divided by the
    root of its number of positions (KFC): then A^T A / N and N D^T D are its Kronecker factors,
    as they are those of a dense layer.

    Args:
      g: the gradient, or a layer signal with some of its layers.
      layer_inputs: the input of that name.
      layer_cotangents: the input of that name.
      layers: how kernels are read.

    References:
      Grosse & Martens 2016, A Kronecker-factored approximate Fisher matrix for convolution layers.
    """
    rows = _rows_of(_flat_rows, "layer_rows", layers)(g, layer_inputs, layer_cotangents)
    return rows[0], rows[1]


@checked()
def layer_means(
    g: Signal,
    layer_inputs: Signal,
    layer_cotangents: Signal,
    layers: Layers,
    clip_value: Positive,
    first_order: Sequence[str] = (),
) -> tuple[Signal, Signal]:
    """Means over the examples of the clipped rows of A and N D: (fan_in [+ 1]) and (fan_out).

    A function of signals.

    A convolution's rows are averaged over the positions first.

    Args:
      g: the gradient.
      layer_inputs: the input of that name.
      layer_cotangents: the input of that name.
      layers: how kernels are read.
      clip_value: entries beyond plus or minus this are clipped.
      first_order: names of layers that are left out.
    """

    def means(
        place: Place, inputs: jax.Array, cotangents: jax.Array, clip_value: float | jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(len(place.stack) + 1, inputs.ndim - 1))
        if place.is_convolution and axes:
            inputs, cotangents = inputs.mean(axes), cotangents.mean(axes)
        inputs, cotangents = _flat_rows(place, inputs, cotangents, divide=False)
        count = inputs.shape[-2]
        clipped = (jnp.clip(x, -clip_value, clip_value) for x in (inputs, count * cotangents))
        mean_input, mean_cotangent = (x.mean(axis=-2) for x in clipped)
        return mean_input, mean_cotangent

    means_of = _rows_of(means, "layer_means", layers, first_order)
    pair = means_of(g, layer_inputs, layer_cotangents, clip_value)
    return pair[0], pair[1]


def _rows_of(fn: Any, label: str, layers: Layers, first_order: Sequence[str] = ()) -> Any:
    def rows(
        context: Context,
        tree: Leaves,
        inputs: optax.Params,
        cotangents: optax.Params,
        *numbers: float | jax.Array,
    ) -> Leaves:
        refuse_unknown(inputs, tree, "layer_inputs")
        refuse_unknown(cotangents, tree, "layer_cotangents")
        places = places_of(tree, layers, first_order)
        seen = [place for place in places if has_data(inputs, place)]
        if places and not seen:
            raise FlowError("layer_inputs has an array for no layer")
        sides: tuple[list[Any], list[Any]] = ([MISSING] * len(tree), [MISSING] * len(tree))
        for place in seen:
            dtype = tree.abstract(place.kernel).dtype
            pair = found_for(inputs, place), found_for(cotangents, place)
            for side, rows in zip(sides, checked_rows(place, *pair, dtype), strict=True):
                side[place.kernel] = rows
        of_leaf = lambda place, a, d: fn(place, a, d, *numbers)  # noqa: E731
        return _at_each(of_leaf, seen, *(Leaves(side, tree.treedef) for side in sides))

    def shapes(
        context: Context, tree: Leaves, inputs: Any, cotangents: Any, *numbers: float | jax.Array
    ) -> Leaves:
        values: list[Any] = [MISSING] * len(tree)
        for place in places_of(tree, layers, first_order):
            like = tree.abstract(place.kernel)
            # The number of rows is known in update only; one row stands for them.
            pair = (
                jax.ShapeDtypeStruct((*place.stack, 1, size), like.dtype)
                for size in (place.fan_in, place.fan_out)
            )
            values[place.kernel] = jax.eval_shape(
                lambda a, d, *n, p=place: fn(p, a, d, *n), *pair, *numbers
            )
        return Leaves(values, tree.treedef)

    return lift_tree(rows, label, context=True, out=shapes)


def _flat_rows(
    place: Place, inputs: jax.Array, cotangents: jax.Array, divide: bool = True
) -> tuple[jax.Array, jax.Array]:
    stack = len(place.stack)
    positions = prod(inputs.shape[stack + 1 : -1])
    flat = inputs.reshape(*place.stack, -1, place.fan_in)
    if place.bias is not None:
        ones = jnp.ones((*flat.shape[:-1], 1), flat.dtype)
        flat = jnp.concatenate([flat, ones], axis=-1)
    if place.is_convolution and divide and positions > 1:
        flat = flat / positions**0.5
    return flat, cotangents.reshape(*place.stack, -1, place.fan_out)


@checked()
def layer_norms(matrices: Signal, g: Signal, layers: Layers = None) -> Signal:
    """Per layer the norm of its kernel plus that of its bias, of shape (..., 1, 1).

    A function of signals.

    Args:
      matrices: a layer signal of matrices [kernel; bias].
      g: the gradient, which tells the layers that have a bias.
      layers: how kernels are read.
    """

    def norms(matrices: Leaves, tree: Leaves) -> Leaves:
        places = [p for p in places_of(tree, layers) if not is_missing(matrices.held[p.kernel])]
        return _at_each(_norms_of, places, matrices)

    return lift_tree(norms, "layer_norms")(matrices, g)


def _norms_of(place: Place, matrix: jax.Array) -> Any:
    parts = jnp.split(matrix, [place.fan_in], axis=-2)
    return sum(matrix_norm(part) for part in parts if part.shape[-2])


def matrix_norm(matrix: jax.Array) -> jax.Array:
    """Frobenius norm, shaped to broadcast."""
    return norm(matrix, axis=(-2, -1), keepdims=True)


@checked()
def across_devices(signal: Signal, axis_name: str | None) -> Signal:
    """The mean of a signal over the devices of a mesh axis; the signal itself without one.

    A function of signals.

    Args:
      signal: a tree signal.
      axis_name: axis of the surrounding `jax.shard_map` or `jax.vmap`, or None.
    """
    if axis_name is None:
        return signal

    def mean(context: Context, tree: Leaves) -> Leaves:
        require_axis(context.label, axis_name)
        return tree.map(lambda leaf: jax.lax.pmean(leaf, axis_name))

    return lift_tree(mean, "pmean", context=True, out=0)(signal)

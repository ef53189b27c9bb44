"""Layers as matrices: gradients, inputs and cotangents of every dense or convolution layer.

A layer is a kernel with its bias. In a flow a layer signal has one matrix per layer, at the place
of the kernel, and nothing at the other leaves:

    G          [dW; db]          (fan_in [+ 1], fan_out)
    A          layer inputs      (N, fan_in [+ 1]), ones appended where there is a bias
    D          cotangents        (N, fan_out), of the mean loss

so that G = A^T D. Kernels that a scan stacks have a further axis in front of all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.shapes import UNKNOWN
from ..notation.signal import Signal
from ..notation.values import MISSING, Leaves, is_missing

KERNEL, BIAS, TABLE = "kernel", "bias", "embedding"


@dataclass(frozen=True)
class Layer:
    """How the kernel of a layer is read as a matrix.

    Attributes:
      stacked: leading axes that count layers, as `nn.scan` makes them.
      outputs: trailing axes that are outputs; more than one in a `DenseGeneral`.
      convolution: whether its inputs are patches, (batch, *positions, patch entries); None: when
        the kernel has more than one input axis.
    """

    stacked: int = 0
    outputs: int = 1
    convolution: bool | None = None


Layers = Mapping[str, Layer | None] | None
"""Layer name ("block/dense") -> how its kernel is read, None where it is no layer. Kernels that it
does not name are dense with two axes, convolutions with more. `gradchain.layers` makes it."""


@dataclass(frozen=True)
class _Place:
    """Where a layer is in the tree, and its shapes."""

    name: tuple[Any, ...]
    kernel: int
    bias: int | None
    shape: tuple[int, ...]
    layer: Layer

    @property
    def stack(self) -> tuple[int, ...]:
        return self.shape[: self.layer.stacked]

    @property
    def fan_in(self) -> int:
        return prod(self.shape[self.layer.stacked : len(self.shape) - self.layer.outputs])

    @property
    def fan_out(self) -> int:
        return prod(self.shape[len(self.shape) - self.layer.outputs :])

    @property
    def rows(self) -> int:
        return self.fan_in + (self.bias is not None)

    @property
    def is_convolution(self) -> bool:
        input_axes = len(self.shape) - self.layer.stacked - self.layer.outputs
        given = self.layer.convolution
        return input_axes > 1 if given is None else given


def layer_name(path: Iterable[Any]) -> str:
    """A path of names as one name: "block/dense"."""
    return "/".join(map(str, path)) or "(the only leaf)"


def leaf_names(treedef: Any) -> list[tuple[Any, ...]]:
    """The path of every leaf as plain names; the `.value` of a Flax variable is no part of it."""
    numbered = treedef.unflatten(range(treedef.num_leaves))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(numbered)[0]]
    return [plain_path(path) for path in paths]


def plain_path(path: Sequence[Any]) -> tuple[Any, ...]:
    """The names along a path of `jax.tree_util` keys."""
    if path and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return tuple(_plain(key) for key in path)


def _plain(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _places(tree: Leaves, layers: Layers, first_order: Sequence[str] = ()) -> list[_Place]:
    """The layers of a tree of leaves."""
    names = leaf_names(tree.treedef)
    index = {name: i for i, name in enumerate(names)}
    for skipped in first_order:
        if not any(_under(path, skipped) for path in names) and not _is_masked(tree, skipped):
            known = ", ".join(sorted({layer_name(_owner(path)) for path in names}))
            raise FlowError(f"first_order_layers: there is no layer {skipped!r}; there are {known}")
    found = []
    for name, i in index.items():
        leaf = tree.values[i]
        owner = _owner(name)
        if is_missing(leaf) or any(_under(owner, skipped) for skipped in first_order):
            continue
        layer = (layers or {}).get(layer_name(owner), _guess(name, leaf))
        if layer is None or name[-1:] == (BIAS,) or leaf.size == 0:
            continue
        found.append(_place(tree, owner, name, i, index, layer))
    return found


def _owner(name: tuple[Any, ...]) -> tuple[Any, ...]:
    """The name of the layer that a leaf belongs to: a bare matrix is a layer of its own name."""
    return name[:-1] if name[-1:] in ((KERNEL,), (BIAS,)) else name


def _under(path: tuple[Any, ...], name: str) -> bool:
    full = layer_name(path)
    return full == name or full.startswith(name + "/")


def _guess(name: tuple[Any, ...], leaf: Any) -> Layer | None:
    is_kernel = name[-1:] == (KERNEL,) and leaf.ndim >= 2
    is_matrix = leaf.ndim == 2 and name[-1:] != (TABLE,)
    return Layer() if is_kernel or is_matrix else None


def _place(
    tree: Leaves,
    owner: tuple[Any, ...],
    name: tuple[Any, ...],
    i: int,
    index: Mapping[tuple[Any, ...], int],
    layer: Layer,
) -> _Place:
    shape = tree.values[i].shape
    if len(shape) < layer.stacked + layer.outputs + 1:
        raise FlowError(f"layer {layer_name(owner)}: a kernel of shape {shape} is not a {layer}")
    bias = index.get((*owner, BIAS)) if name[-1:] == (KERNEL,) else None
    if bias is not None:
        wanted = shape[: layer.stacked] + shape[len(shape) - layer.outputs :]
        other = tree.values[bias]
        bias = bias if not is_missing(other) and other.shape == wanted else None
    return _Place(owner, i, bias, shape, layer)


def _is_masked(tree: Leaves, name: str) -> bool:
    node: Any = tree.tree()
    for part in name.split("/"):
        if is_missing(node):
            return True
        node = _child(node, part, None)
    return is_missing(node)


# --- matrices and back ---------------------------------------------------------------------------


def layer_matrices(
    g: Signal,
    layer_inputs: Any = None,
    layers: Layers = None,
    first_order: Sequence[str] = (),
) -> Signal:
    """The matrix [dW; db] of every layer, at its kernel; nothing elsewhere.

    Args:
      g: a signal like the gradient.
      layer_inputs: the input of that name: layers for which it has None are left out.
      layers: how kernels are read.
      first_order: names of layers that are left out.
    """

    def matrices(context: Context, tree: Leaves, data: Any) -> Leaves:
        values: list[Any] = [MISSING] * len(tree)
        for place in _places(tree, layers, first_order):
            if _has_data(data, place):
                values[place.kernel] = _matrix(tree, place)
        return Leaves(values, tree.treedef)

    def shapes(context: Context, tree: Leaves, data: Any) -> Leaves:
        return jax.eval_shape(lambda t: matrices(context, t, None), tree)

    return lift_tree(matrices, "layer_matrices", context=True, out=shapes)(g, layer_inputs)


def _matrix(tree: Leaves, place: _Place) -> Any:
    kernel = tree.values[place.kernel].reshape(*place.stack, place.fan_in, place.fan_out)
    if place.bias is None:
        return kernel
    bias = tree.values[place.bias].reshape(*place.stack, 1, place.fan_out)
    return jnp.concatenate([kernel, bias.astype(kernel.dtype)], axis=-2)


def join_layers(matrices: Signal, g: Signal, layers: Layers = None) -> Signal:
    """The tree of the layers' matrices, and of `g` where there are none.

    Args:
      matrices: a layer signal.
      g: what the other leaves are.
      layers: how kernels are read.
    """

    def joined(matrices: Leaves, tree: Leaves) -> Leaves:
        values = list(tree.values)
        for place in _places(tree, layers):
            matrix = matrices.values[place.kernel]
            if is_missing(matrix):
                continue
            kernel = matrix if place.bias is None else matrix[..., :-1, :]
            values[place.kernel] = kernel.reshape(place.shape)
            if place.bias is not None:
                values[place.bias] = matrix[..., -1, :].reshape(tree.values[place.bias].shape)
        return Leaves(values, tree.treedef)

    return lift_tree(joined, "join_layers", out=1)(matrices, g)


def layer_rows(
    g: Signal, layer_inputs: Any, layer_cotangents: Any, layers: Layers = None
) -> tuple[Signal, Signal]:
    """Inputs A and cotangents D of every layer as matrices with one row per example and position.

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


def layer_means(
    g: Signal,
    layer_inputs: Any,
    layer_cotangents: Any,
    layers: Layers,
    clip_value: Any,
    first_order: Sequence[str] = (),
) -> tuple[Signal, Signal]:
    """Means over the examples of the clipped rows of A and N D: (fan_in [+ 1]) and (fan_out).

    A convolution's rows are averaged over the positions first.

    Args:
      g: the gradient.
      layer_inputs: the input of that name.
      layer_cotangents: the input of that name.
      layers: how kernels are read.
      clip_value: entries beyond plus or minus this are clipped.
      first_order: names of layers that are left out.
    """

    def means(inputs: Any, cotangents: Any, place: _Place) -> tuple[Any, Any]:
        axes = tuple(range(len(place.stack) + 1, inputs.ndim - 1))
        if place.is_convolution and axes:
            inputs, cotangents = inputs.mean(axes), cotangents.mean(axes)
        inputs, cotangents = _flat_rows(inputs, cotangents, place, divide=False)
        count = inputs.shape[-2]
        clipped = (jnp.clip(x, -clip_value, clip_value) for x in (inputs, count * cotangents))
        mean_input, mean_cotangent = (x.mean(axis=-2) for x in clipped)
        return mean_input, mean_cotangent

    pair = _rows_of(means, "layer_means", layers, first_order)(g, layer_inputs, layer_cotangents)
    return pair[0], pair[1]


def _rows_of(fn: Any, label: str, layers: Layers, first_order: Sequence[str] = ()) -> Any:
    def rows(context: Context, tree: Leaves, inputs: Any, cotangents: Any) -> Leaves:
        _refuse_unknown(inputs, tree, "layer_inputs")
        _refuse_unknown(cotangents, tree, "layer_cotangents")
        values: list[Any] = [MISSING] * len(tree)
        seen = 0
        for place in _places(tree, layers, first_order):
            if not _has_data(inputs, place):
                continue
            seen += 1
            like = tree.values[place.kernel]
            pair = _checked(place, _found(inputs, place), _found(cotangents, place), like.dtype)
            values[place.kernel] = fn(*pair, place)
        if not seen and len(_places(tree, layers, first_order)):
            raise FlowError("layer_inputs has an array for no layer")
        return Leaves(values, tree.treedef)

    def shapes(context: Context, tree: Leaves, *_: Any) -> Leaves:
        values: list[Any] = [MISSING] * len(tree)
        for place in _places(tree, layers, first_order):
            like = tree.values[place.kernel]
            # The number of rows is known in update only; one row stands for them.
            pair = (
                jax.ShapeDtypeStruct((*place.stack, 1, size), like.dtype)
                for size in (place.fan_in, place.fan_out)
            )
            values[place.kernel] = jax.eval_shape(lambda a, d, p=place: fn(a, d, p), *pair)
        return Leaves(values, tree.treedef)

    return lift_tree(rows, label, context=True, out=shapes)


def _flat_rows(inputs: Any, cotangents: Any, place: _Place, divide: bool = True) -> tuple[Any, Any]:
    stack = len(place.stack)
    positions = prod(inputs.shape[stack + 1 : -1])
    flat = inputs.reshape(*place.stack, -1, place.fan_in)
    if place.bias is not None:
        ones = jnp.ones((*flat.shape[:-1], 1), flat.dtype)
        flat = jnp.concatenate([flat, ones], axis=-1)
    if place.is_convolution and divide and positions > 1:
        flat = flat / positions**0.5
    return flat, cotangents.reshape(*place.stack, -1, place.fan_out)


# --- looking up per-layer data -------------------------------------------------------------------


def per_layer(value: Any, like: Signal) -> Any:
    """A hyper-parameter that may differ between layers, as a signal; numbers stay numbers.

    Args:
      value: a number, or a tree with one at every layer, as `layer_inputs` has arrays.
      like: a layer signal.
    """
    if not isinstance(value, Mapping | list | tuple):
        return value

    def looked_up(tree: Leaves) -> Leaves:
        names = leaf_names(tree.treedef)
        values: list[Any] = [MISSING] * len(tree)
        for i, name in enumerate(names):
            if not is_missing(tree.values[i]):
                found = _lookup(value, _owner(name), "the per-layer values")
                values[i] = jnp.asarray(found, jnp.result_type(*jax.tree.leaves(tree.values[i])))
        return Leaves(values, tree.treedef)

    return lift_tree(looked_up, "per_layer")(like)


def spread(values: Any, default: Any) -> Callable[[Any], Any]:
    """A number for every leaf of a tree, from a tree of numbers that may be cut off above them.

    Args:
      values: one above several leaves is that of all of them.
      default: the number of leaves without one.

    Returns:
      A function from a tree to the tree of its numbers; see `leaf_multipliers`.
    """

    def number(path: Sequence[Any], _: Any) -> Any:
        node = values
        for part in plain_path(path):
            node = node if _is_number(node) else _child(node, part, None)
        return node if _is_number(node) else default

    return lambda tree: jax.tree_util.tree_map_with_path(number, tree)


def _is_number(node: Any) -> bool:
    return isinstance(node, int | float) or getattr(node, "ndim", None) == 0


_ABSENT = object()


def _has_data(data: Any, place: _Place) -> bool:
    return data is None or data is UNKNOWN or _lookup(data, place.name, "layer_inputs") is not None


def _found(data: Any, place: _Place) -> Any:
    found = _lookup(data, place.name, "layer_cotangents")
    if found is None:
        raise FlowError(f"layer {layer_name(place.name)} has layer_inputs but no layer_cotangents")
    return found


def _lookup(data: Any, name: tuple[Any, ...], what: str) -> Any:
    """The entry of a layer: an array at the layer itself, or at its kernel; None if it says so."""
    node = data
    for part in name:
        if node is None or is_missing(node):
            return None
        if _is_number(node):  # one for all layers below
            return node
        node = _child(node, part, _ABSENT)
        if node is _ABSENT:
            raise FlowError(
                f"{what} has no entry for the layer {layer_name(name)}; give None for a layer "
                "that is to follow the plain gradient, or leave it out with layers={name: None}"
            )
    if isinstance(node, Mapping):
        node = node.get(KERNEL)
    if is_missing(node):
        return None
    return getattr(node, "value", node) if not hasattr(node, "dtype") else node


def _child(node: Any, part: Any, default: Any) -> Any:
    if isinstance(node, Mapping):
        for key in (part, str(part)):
            if key in node:
                return node[key]
        return node.get(int(part), default) if str(part).isdigit() else default
    if isinstance(node, Sequence) and not isinstance(node, str) and str(part).isdigit():
        return node[int(part)] if int(part) < len(node) else default
    return getattr(node, str(part), default)


def _refuse_unknown(data: Any, tree: Leaves, what: str) -> None:
    whole = tree.tree()
    for path, _ in jax.tree_util.tree_flatten_with_path(data)[0]:
        node = whole
        for part in plain_path(path):
            if is_missing(node):
                break
            node = _child(node, part, _ABSENT)
            if node is _ABSENT:
                name = layer_name(plain_path(path))
                raise FlowError(f"{what} has an entry for {name}, of which there are no params")


def _checked(place: _Place, inputs: Any, cotangents: Any, dtype: Any) -> tuple[Any, Any]:
    inputs, cotangents = (jnp.asarray(x).astype(dtype) for x in (inputs, cotangents))
    name, stack = layer_name(place.name), len(place.stack)
    kind = f"its kernel has shape {place.shape}, read as {place.layer}"
    wanted = {
        "layer_inputs": (inputs, place.fan_in),
        "layer_cotangents": (cotangents, place.fan_out),
    }
    for what, (array, width) in wanted.items():
        fits = array.ndim >= stack + 2 and array.shape[-1] == width
        if not fits or array.shape[:stack] != place.stack:
            raise FlowError(
                f"{what} of layer {name} has shape {array.shape}; it must be "
                f"({', '.join(map(str, (*place.stack, '...', width)))}): {kind}"
            )
    if inputs.shape[:-1] != cotangents.shape[:-1]:
        raise FlowError(
            f"layer {name}: layer_inputs {inputs.shape} and layer_cotangents {cotangents.shape} "
            "differ in their leading axes"
        )
    return inputs, cotangents


def layer_norms(matrices: Signal, g: Signal, layers: Layers = None) -> Signal:
    """Per layer the norm of its kernel plus that of its bias, of shape (..., 1, 1).

    Args:
      matrices: a layer signal of matrices [kernel; bias].
      g: the gradient, which tells the layers that have a bias.
      layers: how kernels are read.
    """

    def norms(matrices: Leaves, tree: Leaves) -> Leaves:
        values: list[Any] = [MISSING] * len(tree)
        for place in _places(tree, layers):
            matrix = matrices.values[place.kernel]
            if not is_missing(matrix):
                parts = jnp.split(matrix, [place.fan_in], axis=-2)
                values[place.kernel] = sum(safe_norm(part) for part in parts if part.shape[-2])
        return Leaves(values, tree.treedef)

    return lift_tree(norms, "layer_norms")(matrices, g)


def safe_norm(matrix: Any) -> Any:
    """Frobenius norm with a derivative of 0 at 0."""
    total = jnp.sum(matrix * matrix, axis=(-2, -1), keepdims=True)
    positive = total > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)


def across_devices(signal: Signal, axis_name: Any) -> Signal:
    """The mean of a signal over the devices of a mesh axis; the signal itself without one.

    Args:
      signal: a tree signal.
      axis_name: axis of the surrounding `jax.shard_map` or `jax.vmap`, or None.
    """
    if axis_name is None:
        return signal
    mean = lift_tree(
        lambda tree: tree.map(lambda leaf: jax.lax.pmean(leaf, axis_name)), "pmean", out=0
    )
    return mean(signal)

"""Gradients of a loss together with what entered and left its layers."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from ..transforms.kronecker.layer_places import BIAS, KERNEL, TABLE, Layer
from ..transforms.notation.errors import FlowError
from ..transforms.notation.paths import Name, joined, plain_path
from .evaluate import evaluate
from .search import Mark, Origin, Search


class LayerGradients(NamedTuple):
    """A loss, its gradient, and what entered and left the layers.

    Attributes:
      value: the loss.
      grads: its gradient, shaped like the params.
      layer_inputs: tree of layer inputs.
      layer_cotangents: tree of the gradients of the loss with respect to layer outputs.
      aux: what else the loss function returned.
    """

    value: jax.Array
    grads: optax.Updates
    layer_inputs: optax.Params
    layer_cotangents: optax.Params
    aux: Any = None

    @property
    def extra(self) -> dict[str, optax.Params]:
        """The keyword arguments for the optimizer's `update`."""
        return {"layer_inputs": self.layer_inputs, "layer_cotangents": self.layer_cotangents}


@dataclass(frozen=True)
class _Trace:
    """A traced loss with its marks."""

    jaxpr: core.ClosedJaxpr
    outputs: Any
    marks: list[Mark]
    paths: list[tuple[Name, ...]]
    leaves: list[jax.Array]
    treedef: jax.tree_util.PyTreeDef


def _trace(loss_fn: Callable[[Any], Any], params: optax.Params, has_aux: bool) -> _Trace:
    def loss_and_aux(params: optax.Params) -> Any:
        out = loss_fn(params)
        loss, aux = out if has_aux else (out, None)
        if jnp.shape(loss):
            raise FlowError(f"the loss must be a scalar, it has shape {jnp.shape(loss)}")
        return loss, aux

    closed, outputs = jax.make_jaxpr(loss_and_aux, return_shape=True)(params)
    paths = [plain_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    leaves, treedef = jax.tree.flatten(params)
    search = Search()
    search.visit(closed.jaxpr, [Origin(i) for i in range(len(leaves))])
    return _Trace(closed, outputs, search.marks, paths, leaves, treedef)


def layer_gradients(
    loss_fn: Callable[[Any], Any], params: optax.Params, has_aux: bool
) -> LayerGradients:
    trace = _trace(loss_fn, params, has_aux)
    zeros = [_zeros(mark) for mark in trace.marks]

    def run(params: optax.Params, added: list[jax.Array]) -> Any:
        leaves = jax.tree.leaves(params)
        out, inputs = evaluate(trace.jaxpr.jaxpr, trace.jaxpr.consts, leaves, iter(added))
        loss, aux = jax.tree.unflatten(jax.tree.structure(trace.outputs), out)
        return loss, (aux, inputs)

    graded = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (value, (aux, inputs)), (grads, cotangents) = graded(params, zeros)
    uses: dict[int, list[tuple[Any, Any]]] = {}
    for mark, x, d in zip(trace.marks, inputs, cotangents, strict=True):
        if mark.origin is not None:
            arranged = _arranged(mark, x, trace), _arranged(mark, d, trace)
            uses.setdefault(mark.origin.leaf, []).append(arranged)
    first: Any = {}
    second: Any = {}
    layers = _layer_of(trace)
    for i, path in enumerate(trace.paths):
        owner = path[:-1] if path[-1:] in ((KERNEL,), (BIAS,)) else path
        if i in uses:
            layer = layers[i]
            assert layer is not None
            first = _entered(first, owner, _joined([x for x, _ in uses[i]], layer, path))
            second = _entered(second, owner, _joined([d for _, d in uses[i]], layer, path))
        elif i in layers:
            first, second = (_entered(tree, owner, None) for tree in (first, second))
    return LayerGradients(value, grads, first, second, aux)


def layers_of(
    loss_fn: Callable[[Any], Any], params: optax.Params, has_aux: bool
) -> dict[str, Layer | None]:
    trace = _trace(loss_fn, params, has_aux)
    found = {}
    for i, layer in _layer_of(trace).items():
        path = trace.paths[i]
        found[joined(path[:-1] if path[-1:] == (KERNEL,) else path)] = layer
    return found


def _layer_of(trace: _Trace) -> dict[int, Layer | None]:
    """For every leaf that could be a kernel, how it is read, or None."""
    found: dict[int, Layer | None] = {}
    for i, (path, leaf) in enumerate(zip(trace.paths, trace.leaves, strict=True)):
        if leaf.ndim >= 2 and path[-1:] not in ((TABLE,), (BIAS,)):
            found[i] = None
    for mark in trace.marks:
        name = mark.params["name"]
        if mark.origin is None:
            continue
        if mark.origin.computed:
            raise FlowError(
                f"the kernel of layer {name} is computed from the params, not one of them: "
                f"skip=({name!r},) leaves it out"
            )
        layer = Layer(_stacked(mark), mark.params["outputs"], mark.params["kind"] == "conv")
        i = mark.origin.leaf
        shape = trace.leaves[i].shape
        if found.get(i) not in (None, layer) or _stack_shape(mark) != shape[: layer.stacked]:
            raise FlowError(
                f"the layer {name} uses its kernel of shape {shape} in a way that cannot be read "
                f"(stacked along another axis than the first, or differently in two places): "
                f"skip=({name!r},) leaves it out"
            )
        found[i] = layer
    return found


def _flags(mark: Mark) -> list[bool]:
    """For every leading axis of the marked arrays, scans first, whether the kernel has it."""
    assert mark.origin is not None
    return [level in mark.origin.slicing for level, _ in mark.scans] + list(mark.params["stacked"])


def _stacked(mark: Mark) -> int:
    return sum(_flags(mark))


def _stack_shape(mark: Mark) -> tuple[int, ...]:
    lead = (*(length for _, length in mark.scans), *mark.y.shape)
    return tuple(size for size, flag in zip(lead, _flags(mark), strict=False) if flag)


def _zeros(mark: Mark) -> jax.Array:
    return jnp.zeros((*(length for _, length in mark.scans), *mark.y.shape), mark.y.dtype)


def _arranged(mark: Mark, array: jax.Array, trace: _Trace) -> jax.Array:
    """An array of a mark with its stacking axes in front, ready for the optimizer."""
    flags, scans = _flags(mark), len(mark.scans)
    stack = [i for i, flag in enumerate(flags) if flag]
    mapped = [i for i in range(scans, len(flags)) if not flags[i]]
    repeated = [i for i in range(scans) if not flags[i]]
    own = list(range(len(flags), array.ndim))
    if mark.params["kind"] == "dense":
        moved = jnp.transpose(array, [*stack, *repeated, *mapped, *own])
        sizes = [moved.shape[i] for i in range(len(stack))]
        return moved if moved.ndim > len(stack) + 1 else moved.reshape(*sizes, 1, moved.shape[-1])
    spatial = mark.params["spatial"]
    batch, positions = own[: len(own) - spatial - 1], own[len(own) - spatial - 1 :]
    order = [*stack, *mapped, *batch, *repeated, *positions]
    moved = jnp.transpose(array, order)
    count = prod(array.shape[i] for i in (*mapped, *batch))
    return moved.reshape(
        *(array.shape[i] for i in stack), count, *(array.shape[i] for i in (*repeated, *positions))
    )


def _joined(arrays: list[jax.Array], layer: Layer, path: tuple[Name, ...]) -> jax.Array:
    """The rows of all calls of a shared layer."""
    if len(arrays) == 1:
        return arrays[0]
    lead = layer.stacked + bool(layer.convolution)
    if len({array.shape[:lead] for array in arrays}) > 1:
        raise FlowError(
            f"the convolution {joined(path[:-1])} is called on batches of different size: "
            "skip leaves it out"
        )
    flat = [array.reshape(*array.shape[:lead], -1, array.shape[-1]) for array in arrays]
    return jnp.concatenate(flat, axis=lead)


def _entered(
    tree: optax.Params, path: tuple[Name, ...], value: jax.Array | None
) -> optax.Params | None:
    """The nested dict with a value at a path."""
    if not path or not isinstance(tree, dict):
        return value if not path else tree
    inner = _entered(tree.get(path[0], {}), path[1:], value)
    return {**tree, path[0]: inner}

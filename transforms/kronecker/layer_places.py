"""Where the layers are in a tree: kernels with their biases, and how they are read as matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax

from ..notation.errors import FlowError
from ..notation.paths import Name, joined, leaf_names
from ..notation.refusing import refusing
from ..notation.values import Leaves, is_missing

KERNEL, BIAS, TABLE = "kernel", "bias", "embedding"


ABSENT = object()
"""In place of a child that a node does not have."""


@refusing
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
class Place:
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


def places_of(tree: Leaves, layers: Layers, first_order: Sequence[str] = ()) -> list[Place]:
    """The layers of a tree of leaves."""
    names = leaf_names(tree.treedef)
    index = {name: i for i, name in enumerate(names)}
    for skipped in first_order:
        if not any(_under(path, skipped) for path in names) and not _is_masked(tree, skipped):
            known = ", ".join(sorted({joined(owner_of(path)) for path in names}))
            raise FlowError(f"first_order_layers: there is no layer {skipped!r}; there are {known}")
    found = []
    for name, i in index.items():
        leaf = tree.abstract(i)
        owner = owner_of(name)
        if is_missing(leaf) or any(_under(owner, skipped) for skipped in first_order):
            continue
        layer = (layers or {}).get(joined(owner), _guess(name, leaf))
        if layer is None or name[-1:] == (BIAS,) or leaf.size == 0:
            continue
        found.append(_place(tree, owner, name, i, index, layer))
    return found


def owner_of(name: tuple[Name, ...]) -> tuple[Name, ...]:
    """The name of the layer that a leaf belongs to: a bare matrix is a layer of its own name."""
    return name[:-1] if name[-1:] in ((KERNEL,), (BIAS,)) else name


def _under(path: tuple[Name, ...], name: str) -> bool:
    full = joined(path)
    return full == name or full.startswith(name + "/")


def _guess(name: tuple[Name, ...], leaf: jax.Array | jax.ShapeDtypeStruct) -> Layer | None:
    is_kernel = name[-1:] == (KERNEL,) and leaf.ndim >= 2
    is_matrix = leaf.ndim == 2 and name[-1:] != (TABLE,)
    return Layer() if is_kernel or is_matrix else None


def _place(
    tree: Leaves,
    owner: tuple[Name, ...],
    name: tuple[Name, ...],
    i: int,
    index: Mapping[tuple[Name, ...], int],
    layer: Layer,
) -> Place:
    shape = tree.abstract(i).shape
    if len(shape) < layer.stacked + layer.outputs + 1:
        raise FlowError(f"layer {joined(owner)}: a kernel of shape {shape} is not a {layer}")
    bias = index.get((*owner, BIAS)) if name[-1:] == (KERNEL,) else None
    if bias is not None:
        wanted = shape[: layer.stacked] + shape[len(shape) - layer.outputs :]
        other = tree.abstract(bias)
        bias = bias if not is_missing(other) and other.shape == wanted else None
    return Place(owner, i, bias, shape, layer)


def _is_masked(tree: Leaves, name: str) -> bool:
    node: Any = tree.tree()
    for part in name.split("/"):
        if is_missing(node):
            return True
        node = child_of(node, part, None)
    return is_missing(node)


def child_of(node: object, part: Name, default: object) -> Any:
    """What a mapping, sequence or object has under a name; `default` if nothing."""
    if isinstance(node, Mapping):
        for key in (part, str(part)):
            if key in node:
                return node[key]
        return node.get(int(str(part)), default) if str(part).isdigit() else default
    if isinstance(node, Sequence) and not isinstance(node, str) and str(part).isdigit():
        return node[int(str(part))] if int(str(part)) < len(node) else default
    return getattr(node, str(part), default)

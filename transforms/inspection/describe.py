"""What a transformation is made of and what it stores: the table of `describe`."""

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.cell import Cell, foreign_cell
from ..notation.checks import checked
from ..notation.foreign import brief, owner_of
from ..notation.hyperparameters import Tree
from ..notation.layout import COUNT, OBSERVED, contents
from ..notation.program import Program
from ..notation.scope import Scope
from ..notation.shapes import Shapes
from ..notation.signal import CellNode, Slot
from ..notation.values import Leaves, working

COLUMNS = ("node", "transformation", "hyper-parameters", "state", "bytes/param")
LONGEST_CELL = 56


@dataclass(frozen=True)
class Row:
    """One transformation or state.

    Attributes:
      path: dotted path, by which `observe` knows a state; empty for the whole.
      name: the last part of the path, or what the only transformation inside another is called.
      depth: how deep it lies in the hierarchy.
      label: the primitive or method, such as "ema".
      arguments: its hyper-parameters.
      state_bytes: bytes of state in it and in all that is inside it.
      bytes_per_parameter: the same per parameter of the model.
    """

    path: str
    name: str
    depth: int
    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state_bytes: int = 0
    bytes_per_parameter: float = 0.0

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, one entry per column."""
        known = shown_arguments(self.arguments)
        arguments = ", ".join(f"{name}={brief(value)}" for name, value in known.items())
        state = readable_bytes(self.state_bytes) if self.state_bytes else ""
        per_parameter = f"{self.bytes_per_parameter:.2f}" if self.state_bytes else ""
        return "  " * self.depth + self.name, self.label, arguments, state, per_parameter


@dataclass(frozen=True)
class Description:
    """The table of `describe`.

    Attributes:
      rows: the whole transformation first, then what is inside, from the outside inwards.
      parameters: how many numbers the params have.
      state_bytes: size of the whole state.
      sent_bytes: what a worker sends to the others in a step.
    """

    rows: tuple[Row, ...]
    parameters: int
    state_bytes: int
    sent_bytes: float = 0.0

    @property
    def bytes_per_parameter(self) -> float:
        """State bytes per parameter of the model."""
        return self.state_bytes / max(self.parameters, 1)

    def __getitem__(self, path: str) -> Row:
        return next(row for row in self.rows if row.path == path)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        table = [COLUMNS, *(tuple(map(_shortened, row.cells)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(_aligned(cells, widths)).rstrip() for cells in table]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, "", self.summary])

    @property
    def summary(self) -> str:
        """One line with the totals."""
        stored = (
            f"{self.parameters:,} parameters, {readable_bytes(self.state_bytes)} of state, "
            f"{self.bytes_per_parameter:.2f} bytes per parameter"
        )
        if not self.sent_bytes:
            return stored
        return f"{stored}; {readable_bytes(self.sent_bytes)} sent per step and worker"

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in COLUMNS)
        body = "".join(f"<tr>{_html_cells(row)}</tr>" for row in self.rows)
        return f"<table><tr>{head}</tr>{body}</table><p>{self.summary}</p>"


@checked()
def describe(transformation: optax.GradientTransformation, params: Tree) -> Description:
    """What a transformation is made of, its hyper-parameters, and how many bytes it stores.

    A function of a transformation.

    Nothing is allocated: abstract params do, as those of `jax.eval_shape`. Of workers along an axis
    it says how many bytes each sends in a step, as the mean over many steps.

    Args:
      transformation: any Optax transformation; of foreign ones the inside is not known.
      params: the parameters, or their shapes and dtypes.

    Returns:
      A `Description`, which prints as a table.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain import describe
      >>> from gradchain.optimizers import adam
      >>> report = describe(adam(1e-3), jax.ShapeDtypeStruct((1000,), jnp.float32))
      >>> report.state_bytes, report["scale_by_adam.mu"].bytes_per_parameter
      (8004, 4.0)
    """
    abstract = jax.eval_shape(lambda: params)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract))
    state = jax.eval_shape(transformation.init, abstract)
    rows = (
        replace(row, bytes_per_parameter=row.state_bytes / max(parameters, 1))
        for row in _rows(transformation, state, "", 0)
    )
    sent = sent_bytes(transformation, abstract)
    return Description(tuple(rows), parameters, state_size(state), sent)


def sent_bytes(transformation: Any, params: Any) -> float:
    """Bytes that a worker sends to the others in a step, for abstract params."""
    program = owner_of(transformation)
    if program is None:
        return sum(sent_bytes(part, params) for part in foreign_cell(transformation).children)
    leaves = Leaves.of(params)
    shapes = Shapes(program.starting(leaves.map(working), leaves))
    return sum(_sent_by(node, shapes) for node in program.graph.live)


def _sent_by(node: Any, shapes: Shapes) -> float:
    if isinstance(node, CellNode):
        sent = node.cell.sent
        if sent is None:
            return _sent_inside(node.cell, shapes.guess(node.args[0]) if node.args else None)
    else:
        sent = getattr(node, "sent", None)
    return 0.0 if sent is None else sent(shapes.context, *map(shapes.guess, node.args))


def _sent_inside(cell: Cell, incoming: Any) -> float:
    """By the transformations inside a node; whichever of them run, they are counted."""
    if not isinstance(incoming, Leaves):
        return 0.0
    return sum(sent_bytes(child, incoming.tree()) for child in cell.children)


def state_size(state: Any) -> int:
    """Bytes of all arrays in a state, abstract or not."""
    return sum(math.prod(leaf.shape) * _itemsize(leaf.dtype) for leaf in jax.tree.leaves(state))


def _itemsize(dtype: jnp.dtype) -> int:
    is_key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return jax.random.key_data(jax.random.key(0)).nbytes if is_key else dtype.itemsize


def _rows(made: Any, state: Any, path: str, depth: int) -> Iterator[Row]:
    """The row of a transformation with that state, and those of what is inside."""
    known = owner_of(made)
    label = foreign_cell(made).name if known is None else known.label
    arguments = foreign_cell(made).arguments if known is None else known.arguments
    name = path.rsplit(".", 1)[-1] if path else label
    yield Row(path, name, depth, label, arguments, state_size(state))
    yield from _inside(made, state, path, depth + 1)


def _inside(made: Any, state: Any, path: str, depth: int) -> Iterator[Row]:
    program = owner_of(made)
    if program is None:
        yield from _children(foreign_cell(made), state, path, depth)
    else:
        yield from _FlowRows(program, state).all(path, depth)


def _children(cell: Cell, state: Any, path: str, depth: int) -> Iterator[Row]:
    known = cell.inside if cell.children and state is not None else None
    states = () if known is None else known(state)
    pairs = zip(cell.named_children().items(), states, strict=False)
    for (name, child), held in pairs:
        first, *others = _rows(child, held, _joined(path, name), depth)
        yield replace(first, name=name or first.label)
        yield from others


class _FlowRows:
    """The rows within one flow."""

    def __init__(self, program: Program, state: Any) -> None:
        self.state = state
        self.stored: dict[int, Any] = {}
        program.layout.unpack(state, self.stored)
        self.names = program.layout.names()
        self.root = program.graph.builder.scope
        self.tree = contents(program.graph.live, self.root)

    def all(self, path: str, depth: int) -> Iterator[Row]:
        """What the state has on its own account, then scope by scope."""
        for name, label in ((COUNT, "step_count"), (OBSERVED, "observe")):
            if name in getattr(self.state, "_fields", ()):
                size = state_size(getattr(self.state, name))
                yield Row(_joined(path, name), name, depth, label, {}, size)
        yield from self._within(self.root, path, depth)

    def _within(self, scope: Scope, path: str, depth: int) -> Iterator[Row]:
        for child in self.tree.get(id(scope), ()):
            if isinstance(child, Scope):
                name = self.names.get(id(child), child.hint)
                at, held = _joined(path, name), [self.stored.get(i) for i in self._slots(child)]
                shown = name or child.label
                yield Row(at, shown, depth, child.label, child.arguments, state_size(held))
                yield from self._within(child, at, depth + 1)
            elif isinstance(child, Slot):
                yield from self._slot(child, path, depth)

    def _slot(self, slot: Slot, path: str, depth: int) -> Iterator[Row]:
        name, held = self.names.get(id(slot), slot.hint), self.stored.get(slot.index)
        cell = slot.cell if isinstance(slot, CellNode) else None
        if name:
            path, label = _joined(path, name), cell.name if cell else "delay"
            arguments = cell.arguments if cell else {}
            yield Row(path, name, depth, label, arguments, state_size(held))
            depth += 1
        if cell:
            yield from _children(cell, held, path, depth)

    def _slots(self, scope: Scope) -> Iterator[int]:
        for child in self.tree.get(id(scope), ()):
            if isinstance(child, Scope):
                yield from self._slots(child)
            elif isinstance(child, Slot):
                yield child.index


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def shown_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters without what is switched off, and what has a place of its own."""
    hidden = (type(None), optax.GradientTransformation)
    return {k: v for k, v in arguments.items() if v is not False and not isinstance(v, hidden)}


def readable_bytes(size: float) -> str:
    """Such as "8.0 kB"."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{round(size, 1):g} B" if unit == "B" else f"{amount:.1f} {unit}"


def _shortened(cell: str) -> str:
    return cell if len(cell) <= LONGEST_CELL else cell[: LONGEST_CELL - 1] + "…"


def _aligned(cells: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    numbers = len(cells) - 2
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        yield cell.rjust(width) if index >= numbers else cell.ljust(width)


def _html_cells(row: Row) -> str:
    name, *others = row.cells
    padding = f"style='text-align:left;padding-left:{0.5 + row.depth}em'"
    cells = "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in others)
    return f"<td {padding}><code>{html.escape(name.strip())}</code></td>{cells}"

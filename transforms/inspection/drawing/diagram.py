"""What a drawing shows: the boxes and nets of a graph, opened to a given depth."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optax

from ...notation.compose import as_flow, chain
from ...notation.foreign import brief, owner_of, parts_of
from ...notation.program import Program
from ...notation.scope import Scope
from ...notation.signal import CellNode, Clock, Delay, Function, Input, Signal
from ..describe import shown_arguments

SYMBOLS = {
    "*": "×",
    "/": "÷",
    "-": "−",
    "negate": "−",
    "**": "^",
    "<=": "≤",
    ">=": "≥",
    "==": "=",
    "!=": "≠",
    "sqrt": "√x",
    "square": "x²",
    "abs": "|x|",
}
COMMUTE = {"+", "*"}
BINARY = COMMUTE | {"-", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!="}
MARKS = {"-": "−", "/": "÷"}
LONGEST_DETAIL = 3
SMALL_GROUP = 2


@dataclass(eq=False)
class Box:
    """Something that is drawn.

    Attributes:
      kind: "input", "output", "operator", "function", "state" (keeps state), "inner" (a
        transformation whose inside is not shown) or "group" (one whose inside is).
      title: the name.
      detail: a second line, such as hyper-parameters.
      children: what is inside a group.
      stateful: whether something in it keeps state.
      is_first: True for the incoming update.
    """

    kind: str
    title: str
    detail: str = ""
    children: list["Box"] = field(default_factory=list)
    stateful: bool = False
    is_first: bool = False

    def everything(self) -> Iterator["Box"]:
        """The box and all boxes inside."""
        yield self
        for child in self.children:
            yield from child.everything()


@dataclass(eq=False)
class Net:
    """A signal on its way to everything that reads it.

    Attributes:
      upper: the box that it leaves, or the delay if `upward`.
      lowers: the boxes that it reaches.
      upward: the signal flows from the lower end to the upper one.
      dashed: what is read at the next step only.
      marks: a sign for the second operand of a difference or quotient, by the id of a lower box.
    """

    upper: Box
    lowers: list[Box]
    upward: bool = False
    dashed: bool = False
    marks: dict[int, str] = field(default_factory=dict)


@dataclass
class Diagram:
    """Boxes within boxes, and the nets that join them."""

    root: Box
    nets: list[Net]


def diagram_of(transformation: optax.GradientTransformation, depth: int | None) -> Diagram:
    """The diagram of a transformation.

    Args:
      transformation: any Optax transformation.
      depth: how many levels of transformations inside are opened; None for all.
    """
    made = owner_of(transformation)
    if made is None:
        made = chain(*(parts_of(transformation) or (transformation,))).own_program
    opened = depth if depth is None or not made.parts else depth + 1
    return _Drawing(made, opened).diagram()


@dataclass
class _Edge:
    source: Box
    target: Box
    mark: str = ""
    dashed: bool = False


class _Drawing:
    """Collects boxes and edges."""

    def __init__(self, made: Program, depth: int | None) -> None:
        self.made = made
        self.depth = depth
        self.root = Box("group", made.label)
        self.needed = made.needs
        self.inputs: dict[str, Box] = {}
        self.edges: list[_Edge] = []

    def diagram(self) -> Diagram:
        """Everything, ready to be laid out."""
        incoming = self._input("updates")
        boxes = self._flow(self.made, self.root, 0, incoming)
        outgoing = self._add(self.root, Box("output", "update"))
        self._edge(boxes[self.made.graph.output.index], outgoing)
        if self.depth is not None:
            _close_small_groups(self.root, self.edges)
        arrows = _downwards(self.root, self.edges)
        _dissolve_cycles(self.root, arrows)
        return Diagram(self.root, _nets(arrows))

    def _add(self, group: Box, box: Box) -> Box:
        group.children.append(box)
        return box

    def _input(self, name: str, is_optional: bool = False) -> Box:
        if name not in self.inputs:
            first, optional = name == "updates", is_optional and name not in self.needed
            title = "g" if first else f"{name}?" if optional else name
            box = Box("input", title, is_first=first)
            self.inputs[name] = self._add(self.root, box)
        return self.inputs[name]

    def _edge(self, source: Box, target: Box, mark: str = "", dashed: bool = False) -> None:
        if source is not target:
            self.edges.append(_Edge(source, target, mark, dashed))

    def _flow(self, made: Program, group: Box, depth: int, incoming: Box) -> dict[int, Box]:
        """Adds the nodes of a flow to a group; returns the box of each node by its index."""
        graph = made.graph
        groups: dict[int, tuple[Box, int]] = {id(graph.builder.scope): (group, depth)}
        boxes: dict[int, Box] = {}
        for node in graph.live:
            if isinstance(node, Input):
                first = node.name == "updates"
                boxes[node.index] = incoming if first else self._input(node.name, node.optional)
                continue
            inside, level = self._group(node.scope, groups)
            if inside.kind == "inner":
                boxes[node.index] = inside
                inside.stateful |= _is_stateful(node)
                if isinstance(node, CellNode):
                    self._through(node, inside, boxes)
            else:
                boxes[node.index] = self._node(node, inside, level, boxes)
            if isinstance(node, Function):
                self._arguments(node, boxes)
        for node in graph.live:
            if isinstance(node, Delay) and isinstance(node.written, Signal):
                self._edge(boxes[node.written.index], boxes[node.index], dashed=True)
        return boxes

    def _group(self, scope: Scope, groups: dict[int, tuple[Box, int]]) -> tuple[Box, int]:
        """The box that stands for a scope: a group, or one whose inside is not shown."""
        if id(scope) not in groups:
            assert scope.parent is not None
            parent, level = self._group(scope.parent, groups)
            if parent.kind == "inner":
                groups[id(scope)] = parent, level
            else:
                closed = self.depth is not None and level + 1 >= self.depth
                box = Box("inner" if closed else "group", *_captions(scope))
                groups[id(scope)] = self._add(parent, box), level + 1
        return groups[id(scope)]

    def _node(self, node: Signal, group: Box, level: int, boxes: dict[int, Box]) -> Box:
        if isinstance(node, Clock):
            return self._add(group, Box("input", "t of the loop" if node.outermost else "t"))
        if isinstance(node, Delay):
            title = node.hint if node.explicit or group is self.root else group.title
            return self._add(group, Box("state", f"{_only_name(title)} z⁻¹", stateful=True))
        if isinstance(node, CellNode):
            return self._cell(node, group, level, boxes)
        return self._add(group, _function_box(node))

    def _cell(self, node: CellNode, group: Box, level: int, boxes: dict[int, Box]) -> Box:
        cell = node.cell
        opened = cell.children and (self.depth is None or level + 1 < self.depth)
        kind = "function" if cell.stateless else "state"
        if not opened:
            detail = _arguments_text(cell.arguments)
            kind = "inner" if cell.children else kind
            box = Box(kind, cell.name, detail, stateful=not cell.stateless)
            self._through(node, self._add(group, box), boxes)
            return box
        inside = self._add(group, Box("group", cell.name, _arguments_text(cell.arguments)))
        signal = boxes[node.args[0].index]
        for child in cell.children:
            inner_program = as_flow(child).own_program
            inner = self._flow(inner_program, inside, level + 1, signal)
            signal = inner[inner_program.graph.output.index]
        others = [arg for arg in node.args[1:] if isinstance(arg, Signal)]
        if not others:
            return signal
        held = self._add(group, Box("state", "hold", stateful=True))
        self._edge(signal, held)
        for arg in others:
            self._edge(boxes[arg.index], held)
        return held

    def _through(self, node: CellNode, box: Box, boxes: dict[int, Box]) -> None:
        for arg in node.args:
            if isinstance(arg, Signal):
                self._edge(boxes[arg.index], box)
        for name in node.cell.needs:
            self._edge(self._input(name), box)

    def _arguments(self, node: Function, boxes: dict[int, Box]) -> None:
        target = boxes[node.index]
        for position, arg in enumerate(node.args):
            if isinstance(arg, Signal) and arg.index in boxes:
                mark = MARKS.get(node.label, "") if position == 1 else ""
                self._edge(boxes[arg.index], target, "" if target.kind == "inner" else mark)


def _is_stateful(node: Signal) -> bool:
    return isinstance(node, Delay) or (isinstance(node, CellNode) and not node.cell.stateless)


def _captions(scope: Scope) -> tuple[str, str]:
    same = scope.hint == scope.label or not scope.explicit
    title = scope.label if same else f"{scope.hint}: {scope.label}"
    return title, _arguments_text(scope.arguments)


def _only_name(title: str) -> str:
    return title.split(":")[0]


def _arguments_text(arguments: Mapping[str, Any]) -> str:
    known = [(name, _number(value)) for name, value in shown_arguments(arguments).items()]
    shown = [f"{name} {text}" for name, text in known if text]
    more = ["…"] if len(shown) > LONGEST_DETAIL else []
    return ", ".join([*shown[:LONGEST_DETAIL], *more])


def _function_box(node: Signal) -> Box:
    symbol = SYMBOLS.get(node.label, node.label)
    constants = [arg for arg in node.args if not isinstance(arg, Signal)]
    is_operator = symbol != node.label or not node.label.isidentifier()
    if node.label in BINARY:
        constants = [int(arg) if isinstance(arg, bool) else arg for arg in constants]
    kept = [text for text in map(_number, constants) if text]
    if node.label in BINARY and len(kept) == 1:
        first = not isinstance(node.args[0], Signal)
        swapped = first and node.label not in COMMUTE
        return Box("operator", f"{kept[0]} {symbol}" if swapped else f"{symbol} {kept[0]}")
    keywords = getattr(node.fn, "keywords", {}) if isinstance(node, Function) else {}
    kept += [f"{name}={_number(value)}" for name, value in keywords.items()]
    return Box("operator" if is_operator else "function", symbol, ", ".join(kept))


def _number(value: object) -> str:
    """A constant in a diagram: short, with a true minus sign; empty for what has no short form."""
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | np.number):
        return f"{value:.4g}".replace("-", "−")
    if callable(value) or isinstance(value, functools.partial):
        return brief(value) if getattr(value, "__name__", "").isidentifier() else ""
    return "…" if getattr(value, "shape", None) == () else ""


def _close_small_groups(group: Box, edges: list[_Edge]) -> None:
    """Makes one box of a group in which there is next to nothing to see."""
    for child in group.children:
        if not child.children:
            continue
        _close_small_groups(child, edges)
        inside = child.children
        if len(inside) > SMALL_GROUP or any(box.stateful or box.children for box in inside):
            continue
        hidden = {id(box) for box in inside}
        for edge in edges:
            edge.source = child if id(edge.source) in hidden else edge.source
            edge.target = child if id(edge.target) in hidden else edge.target
            edge.mark = "" if edge.target is child else edge.mark
        edges[:] = [edge for edge in edges if edge.source is not edge.target]
        child.kind, child.children = "inner", []


@dataclass
class _Arrow:
    """An edge with its upper and its lower end."""

    upper: Box
    lower: Box
    edge: _Edge


def _downwards(root: Box, edges: list[_Edge]) -> list[_Arrow]:
    """Decides for every edge which end is up, so that there is no cycle.

    Signals run down; what is written to a delay, and what returns to a box that is closed, runs up.
    """
    boxes = [box for box in root.everything() if box is not root]
    waits: dict[int, int] = dict.fromkeys(map(id, boxes), 0)
    solid = [edge for edge in edges if not edge.dashed]
    for edge in solid:
        waits[id(edge.target)] += 1
    rank: dict[int, int] = {}
    while len(rank) < len(boxes):
        open_boxes = [box for box in boxes if id(box) not in rank]
        box = next((box for box in open_boxes if not waits[id(box)]), open_boxes[0])
        rank[id(box)] = len(rank)
        for edge in solid:
            if edge.source is box:
                waits[id(edge.target)] -= 1
    return [
        _Arrow(edge.source, edge.target, edge)
        if rank[id(edge.source)] < rank[id(edge.target)]
        else _Arrow(edge.target, edge.source, edge)
        for edge in edges
    ]


def _nets(arrows: list[_Arrow]) -> list[Net]:
    """Edges from the same box make one net; each of those that run up is a net of its own."""
    nets: dict[Any, Net] = {}
    for arrow in arrows:
        upward = arrow.upper is arrow.edge.target
        key = (id(arrow.upper), arrow.edge.dashed, id(arrow.lower) if upward else None)
        net = nets.setdefault(key, Net(arrow.upper, [], upward, arrow.edge.dashed))
        if not any(arrow.lower is known for known in net.lowers):
            net.lowers.append(arrow.lower)
        if arrow.edge.mark:
            net.marks[id(arrow.lower)] = arrow.edge.mark
    return list(nets.values())


def _dissolve_cycles(root: Box, arrows: list[_Arrow]) -> None:
    """Takes the frame off groups that a signal leaves and enters again."""
    pending = [root]
    while pending:
        group = pending.pop()
        while (culprit := _in_a_cycle(group, arrows)) is not None:
            at = next(i for i, child in enumerate(group.children) if child is culprit)
            group.children[at : at + 1] = culprit.children
        pending.extend(child for child in group.children if child.children)


def _in_a_cycle(group: Box, arrows: Iterable[_Arrow]) -> Box | None:
    owner = {id(box): child for child in group.children for box in child.everything()}
    after: dict[int, set[int]] = {}
    for arrow in arrows:
        a, b = owner.get(id(arrow.upper)), owner.get(id(arrow.lower))
        if a is not None and b is not None and a is not b:
            after.setdefault(id(a), set()).add(id(b))
    for child in group.children:
        if child.children and _reaches(id(child), id(child), after):
            return child
    return None


def _reaches(start: int, goal: int, after: Mapping[int, set[int]]) -> bool:
    pending, seen = list(after.get(start, ())), set()
    while pending:
        node = pending.pop()
        if node == goal:
            return True
        if node not in seen:
            seen.add(node)
            pending.extend(after.get(node, ()))
    return False

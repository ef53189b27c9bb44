"""Diagrams as pictures: shapes and words, written as SVG or, with matplotlib, as PNG."""

import html
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...notation.errors import FlowError
from .diagram import Box, Diagram
from .placement import Measure, Placed, Wire, place

FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SIZE, SMALL = 13, 11
CHARACTER = 0.605
"""Width of a character of a monospaced font, in units of its size."""
MARGIN = 16
CORNER = 7

INK, FAINT, WIRE, FEEDBACK = "#1e293b", "#64748b", "#7c8aa0", "#d97706"


@dataclass(frozen=True)
class Look:
    """Colours of a kind of box."""

    fill: str
    edge: str
    radius: int = 6


LOOKS = {
    "input": Look("#f1f5f9", "#94a3b8", 13),
    "output": Look("#f1f5f9", "#94a3b8", 13),
    "operator": Look("#ffffff", "#a8b4c6", 12),
    "function": Look("#e0edfb", "#7fa6d6"),
    "inner": Look("#e9e7fb", "#9a91d9"),
}
STATEFUL = Look("#fdecc8", "#dd9f35")
GROUP = Look("#94a3b8", "#94a3b8", 10)


@dataclass(frozen=True)
class Shape:
    """Something at (x, y)."""

    def shifted(self, dx: float, dy: float) -> "Shape":
        """The same, moved to the right and down."""
        return replace(self, x=self.x + dx, y=self.y + dy)  # type: ignore[attr-defined, call-arg]


@dataclass(frozen=True)
class Rectangle(Shape):
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    look: Look
    opacity: float = 1.0


@dataclass(frozen=True)
class Stroke(Shape):
    """A path of straight pieces, whose corners are rounded."""

    corners: tuple[tuple[float, float], ...]
    colour: str = WIRE
    dashed: bool = False

    def shifted(self, dx: float, dy: float) -> "Stroke":
        """The same, moved to the right and down."""
        return replace(self, corners=tuple((x + dx, y + dy) for x, y in self.corners))


@dataclass(frozen=True)
class Head(Shape):
    """An arrow head whose tip is at (x, y)."""

    x: float
    y: float
    up: bool = False
    colour: str = WIRE


@dataclass(frozen=True)
class Words(Shape):
    """A line of text, centred vertically on y."""

    x: float
    y: float
    text: str
    size: int = SIZE
    colour: str = INK
    anchor: str = "middle"
    bold: bool = False


@dataclass
class Picture:
    """Shapes in the order in which they are painted.

    Attributes:
      width: in pixels.
      height: in pixels.
      shapes: rectangles, strokes, heads and words.
    """

    width: float
    height: float
    shapes: list[Shape] = field(default_factory=list)

    def shifted(self, dx: float, dy: float) -> "Picture":
        """The same shapes, moved to the right and down."""
        return Picture(self.width, self.height, [shape.shifted(dx, dy) for shape in self.shapes])

    def svg(self) -> str:
        """The picture as a document of its own."""
        width, height = f"{self.width:g}", f"{self.height:g}"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="{FONT}">'
        )
        return "\n".join([head, *map(_svg, self.shapes), "</svg>\n"])

    def save(self, path: str | Path) -> None:
        """Writes it as SVG or PNG, as the ending says.

        Raises:
          FlowError: for another ending, or if matplotlib is missing for a PNG.
        """
        ending = Path(path).suffix.lower()
        if ending == ".svg":
            Path(path).write_text(self.svg(), encoding="utf-8")
        elif ending == ".png":
            _save_png(self, path)
        else:
            raise FlowError(f"path={str(path)!r}: a diagram is written as .svg or .png")


def picture_of(diagram: Diagram, margin: int = MARGIN) -> Picture:
    """Lays out a diagram in pixels."""
    measure = Measure(_size, _title_width, 26, 16, 12, 10, 16, (16, 30, 12), 7)
    placement = place(diagram.root, diagram.nets, measure)
    placement.shifted(margin, margin)
    picture = Picture(placement.width + 2 * margin, placement.height + 2 * margin)
    groups = [placed for placed in placement.boxes if placed.box.children]
    boxes = [placed for placed in placement.boxes if not placed.box.children]
    for placed in groups:
        picture.shapes += _group(placed)
    for wire in sorted(placement.wires, key=lambda wire: wire.net.dashed):
        picture.shapes += _wire(wire)
    for placed in boxes:
        picture.shapes += _box(placed)
    return picture


def _text_width(text: str, size: int) -> int:
    return round(len(text) * size * CHARACTER)


def _size(box: Box) -> tuple[int, int]:
    widest = max(_text_width(box.title, SIZE), _text_width(box.detail, SMALL))
    return max(widest + 22, 38), 42 if box.detail else 26


def _title_width(box: Box) -> int:
    return _text_width(box.title, SIZE) + 6


def _group(placed: Placed) -> Iterator[Any]:
    yield Rectangle(placed.x, placed.y, placed.width, placed.height, GROUP, 0.12)
    x = placed.x + placed.title.x
    y = placed.y + (placed.height - 14 if placed.title.below else 16)
    yield Words(x, y, placed.box.title, SIZE, FAINT, "start", True)


def _box(placed: Placed) -> Iterator[Any]:
    box = placed.box
    look = STATEFUL if box.stateful else LOOKS[box.kind]
    yield Rectangle(placed.x, placed.y, placed.width, placed.height, look)
    x, y = placed.x + placed.width / 2, placed.y + placed.height / 2
    if box.detail:
        yield Words(x, y - 8, box.title)
        yield Words(x, y + 10, box.detail, SMALL, FAINT)
    else:
        yield Words(x, y, box.title)


def _wire(wire: Wire) -> Iterator[Any]:
    colour = FEEDBACK if wire.net.dashed else WIRE
    for path in wire.paths:
        yield Stroke(tuple(path), colour, wire.net.dashed)
    for x, y in wire.arrows:
        yield Head(x, y, wire.net.upward, colour)
    for x, y, mark, is_left in wire.marks:
        yield Words(x + (-11 if is_left else 11), y - 9, mark, SMALL, FAINT)


def _svg(shape: Any) -> str:
    if isinstance(shape, Rectangle):
        look = shape.look
        return (
            f'<rect x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" '
            f'height="{shape.height:g}" rx="{look.radius}" fill="{look.fill}" '
            f'fill-opacity="{shape.opacity:g}" stroke="{look.edge}"/>'
        )
    if isinstance(shape, Stroke):
        dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return (
            f'<path d="{_rounded(shape.corners)}" fill="none" stroke="{shape.colour}" '
            f'stroke-width="1.5"{dash}/>'
        )
    if isinstance(shape, Head):
        points = " ".join(f"{x:g},{y:g}" for x, y in _head(shape))
        return f'<polygon points="{points}" fill="{shape.colour}"/>'
    weight = ' font-weight="600"' if shape.bold else ""
    return (
        f'<text x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}" fill="{shape.colour}" '
        f'text-anchor="{shape.anchor}" dominant-baseline="central"{weight} '
        f'xml:space="preserve">{html.escape(shape.text)}</text>'
    )


def _head(head: Head) -> list[tuple[float, float]]:
    back = 8 if head.up else -8
    tip = head.y + (1 if head.up else -1)
    return [(head.x, tip), (head.x - 4.5, tip + back), (head.x + 4.5, tip + back)]


def _rounded(corners: tuple[tuple[float, float], ...]) -> str:
    """The path data; every corner is a curve of radius CORNER, or less where there is no room."""
    start, *inner, end = corners
    parts = [f"M{start[0]:g} {start[1]:g}"]
    for before, corner, after in zip(corners, inner, [*inner[1:], end], strict=False):
        room = min(_distance(before, corner), _distance(corner, after)) / 2
        radius = min(CORNER, room)
        (x1, y1), (x2, y2) = _towards(corner, before, radius), _towards(corner, after, radius)
        parts.append(f"L{x1:g} {y1:g}Q{corner[0]:g} {corner[1]:g} {x2:g} {y2:g}")
    return "".join([*parts, f"L{end[0]:g} {end[1]:g}"])


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(a: tuple[float, float], b: tuple[float, float], by: float) -> tuple[float, float]:
    far = max(_distance(a, b), 1)
    return a[0] + (b[0] - a[0]) * by / far, a[1] + (b[1] - a[1]) * by / far


def _save_png(picture: Picture, path: str | Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FlowError(
            "a PNG needs matplotlib: pip install 'gradchain[draw]', or write an .svg"
        ) from error
    figure = Figure((picture.width / 72, picture.height / 72), dpi=144)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)
    axes.axis("off")
    for order, shape in enumerate(picture.shapes):
        _paint(axes, shape, order)
    figure.savefig(path)


def _paint(axes: Any, shape: Any, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve

    if isinstance(shape, Rectangle):
        style = f"round,pad=0,rounding_size={min(shape.look.radius, shape.height / 2)}"
        for fill, opacity in ((True, shape.opacity), (False, 1.0)):
            patch = FancyBboxPatch((shape.x, shape.y), shape.width, shape.height, boxstyle=style)
            patch.set(facecolor=shape.look.fill, edgecolor=shape.look.edge, linewidth=1.0)
            patch.set(fill=fill, alpha=opacity if fill else None, zorder=order)
            if fill:
                patch.set_edgecolor("none")
            axes.add_patch(patch)
    elif isinstance(shape, Stroke):
        dashes = (0, (3.5, 2.5)) if shape.dashed else "solid"
        curve = _curve(shape.corners, Curve)
        axes.add_patch(
            PathPatch(curve, fill=False, ec=shape.colour, lw=1.5, ls=dashes, zorder=order)
        )
    elif isinstance(shape, Head):
        axes.add_patch(Polygon(_head(shape), fc=shape.colour, ec="none", zorder=order))
    else:
        align = {"middle": "center", "start": "left"}[shape.anchor]
        axes.text(
            shape.x,
            shape.y,
            shape.text,
            fontsize=shape.size,
            color=shape.colour,
            ha=align,
            va="center_baseline",
            family="monospace",
            weight="bold" if shape.bold else "normal",
            zorder=order,
            parse_math=False,
        )


def _curve(corners: tuple[tuple[float, float], ...], curve: Any) -> Any:
    start, *inner, end = corners
    points: list[Any] = [start]
    codes = [curve.MOVETO]
    for before, corner, after in zip(corners, inner, [*inner[1:], end], strict=False):
        radius = min(CORNER, _distance(before, corner) / 2, _distance(corner, after) / 2)
        points += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
        codes += [curve.LINETO, curve.CURVE3, curve.CURVE3]
    return curve([*points, end], [*codes, curve.LINETO])

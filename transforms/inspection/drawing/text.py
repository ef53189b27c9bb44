"""Diagrams as text."""

import itertools

from .diagram import Box, Diagram
from .placement import Measure, Placed, Wire, place

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
LINES = {
    UP: "│",
    DOWN: "│",
    UP | DOWN: "│",
    LEFT: "─",
    RIGHT: "─",
    LEFT | RIGHT: "─",
    DOWN | RIGHT: "╭",
    DOWN | LEFT: "╮",
    UP | RIGHT: "╰",
    UP | LEFT: "╯",
    UP | DOWN | RIGHT: "├",
    UP | DOWN | LEFT: "┤",
    LEFT | RIGHT | DOWN: "┬",
    LEFT | RIGHT | UP: "┴",
    UP | DOWN | LEFT | RIGHT: "┼",
}
DASHED = {"│": "┆", "─": "┄"}


def as_text(diagram: Diagram) -> str:
    """The diagram in box-drawing characters."""
    measure = Measure(_text_size, lambda box: len(_text_title(box)), 3, 2, 1, 1, 1, (2, 1, 1), 1)
    placement = place(diagram.root, diagram.nets, measure)
    sheet = _Sheet()
    for wire in placement.wires:
        sheet.wire(wire)
    for placed in placement.boxes:
        sheet.box(placed)
    for wire in placement.wires:
        sheet.ends(wire)
    return str(sheet)


def _text_lines(box: Box) -> list[str]:
    return [box.title, box.detail] if box.detail else [box.title]


def _text_title(box: Box) -> str:
    return f" {box.title} "


def _is_flat(box: Box) -> bool:
    return box.kind in ("input", "output", "operator") and not box.detail


def _text_size(box: Box) -> tuple[int, int]:
    width = max(map(len, _text_lines(box))) + 4
    return width, 1 if _is_flat(box) else 2 + len(_text_lines(box))


class _Sheet:
    """Character cells."""

    def __init__(self) -> None:
        self.bits: dict[tuple[int, int], int] = {}
        self.dashed: set[tuple[int, int]] = set()
        self.text: dict[tuple[int, int], str] = {}

    def wire(self, wire: Wire) -> None:
        """Draws the lines of a wire."""
        for path in wire.paths:
            for (x1, y1), (x2, y2) in itertools.pairwise(path):
                if x1 == x2:
                    self._vertical(x1, y1, y2, wire.net.dashed)
                else:
                    self._horizontal(y1, min(x1, x2), max(x1, x2), wire.net.dashed)

    def _vertical(self, x: int, y1: int, y2: int, dashed: bool) -> None:
        for y in range(y1, y2 + 1):
            bits = (UP if y > y1 else 0) | (DOWN if y < y2 else 0)
            self._add(x, y, bits or UP | DOWN, dashed)

    def _horizontal(self, y: int, x1: int, x2: int, dashed: bool) -> None:
        for x in range(x1, x2 + 1):
            self._add(x, y, (LEFT if x > x1 else 0) | (RIGHT if x < x2 else 0), dashed)

    def _add(self, x: int, y: int, bits: int, dashed: bool) -> None:
        if not dashed:
            self.dashed.discard((x, y))
        elif (x, y) not in self.bits:
            self.dashed.add((x, y))
        self.bits[x, y] = self.bits.get((x, y), 0) | bits

    def box(self, placed: Placed) -> None:
        """Draws a box, or the frame of a group."""
        box, x, y = placed.box, placed.x, placed.y
        if box.children:
            self._frame(placed, "┌┐└┘")
            row = y + placed.height - 1 if placed.title.below else y
            self._write(x + placed.title.x, row, _text_title(box))
        elif _is_flat(box):
            sides = "()" if box.kind in ("input", "output") else "[]"
            self._write(x, y, f"{sides[0]}{box.title.center(placed.width - 2)}{sides[1]}")
        else:
            self._frame(placed, "┏┓┗┛" if box.stateful else "┌┐└┘", heavy=box.stateful)
            for row, line in enumerate(_text_lines(box), 1):
                self._write(x + 1, y + row, line.center(placed.width - 2))

    def _frame(self, placed: Placed, corners: str, heavy: bool = False) -> None:
        left, top = placed.x, placed.y
        right, bottom = left + placed.width - 1, top + placed.height - 1
        across, down = "━┃" if heavy else "─│"
        for x in range(left + 1, right):
            for y in (top, bottom):
                self._border(x, y, across, bool(placed.box.children))
        for y in range(top + 1, bottom):
            for x in (left, right):
                self.text[x, y] = down
        for corner, at in zip(
            corners, ((left, top), (right, top), (left, bottom), (right, bottom)), strict=True
        ):
            self.text[at] = corner

    def _border(self, x: int, y: int, across: str, is_group: bool) -> None:
        crossed = is_group and self.bits.get((x, y), 0) & (UP | DOWN)
        self.text[x, y] = "┼" if crossed else across

    def _write(self, x: int, y: int, text: str) -> None:
        for offset, character in enumerate(text):
            self.text[x + offset, y] = character

    def ends(self, wire: Wire) -> None:
        """Draws arrow heads."""
        for x, y in wire.arrows:
            self.text[x, y if wire.net.upward else y - 1] = "▲" if wire.net.upward else "▼"
        for x, y, mark, is_left in wire.marks:
            self.text[x + (-1 if is_left else 1), y - 1] = mark

    def __str__(self) -> str:
        cells = [*self.bits, *self.text]
        width, height = (1 + max(at[axis] for at in cells) for axis in (0, 1))
        rows = ("".join(self._at(x, y) for x in range(width)).rstrip() for y in range(height))
        return "\n".join(rows)

    def _at(self, x: int, y: int) -> str:
        if (x, y) in self.text:
            return self.text[x, y]
        line = LINES.get(self.bits.get((x, y), 0), " ")
        return DASHED.get(line, line) if (x, y) in self.dashed else line

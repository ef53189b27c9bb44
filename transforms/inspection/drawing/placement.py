"""Where the boxes and wires of a diagram go: layers from top to bottom, groups within groups.

Every group is laid out on its own and then is one item of the group around it. A wire that crosses
the frame of a group does so at a port, on the upper side where the signal enters.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .diagram import Box, Net

SWEEPS = 12
WIRE_WEIGHT, LONG_WIRE_WEIGHT = 4.0, 400.0
"""How much more straightness is worth to a wire that passes a layer, or several, than to a box."""

Path = list[tuple[int, int]]


@dataclass(frozen=True)
class Measure:
    """Sizes, in pixels or character cells.

    Attributes:
      size: `(box) -> (width, height)` of a box that is not a group.
      title: `(box) -> width` of a group's title.
      gap: between neighbours in a layer.
      wire_gap: between two wires in a layer.
      before: height above the first track of a channel.
      track: height of a track.
      after: height below the last track: room for an arrow.
      pad: margin within a group: beside, and above or below with the title and without it.
      snap: how far a pin may move to make its wire straight.
    """

    size: Callable[[Box], tuple[int, int]]
    title: Callable[[Box], int]
    gap: int
    wire_gap: int
    before: int
    track: int
    after: int
    pad: tuple[int, int, int]
    snap: int


@dataclass
class Placed:
    """A box at its place."""

    box: Box
    x: int
    y: int
    width: int
    height: int
    title: "Title"


@dataclass(frozen=True)
class Title:
    """Where the title of a group stands: at its upper or its lower frame, from x on."""

    x: int = 0
    below: bool = False


@dataclass
class Wire:
    """A piece of a wire: paths of corners from top to bottom, arrow heads, and marks.

    A mark is (x, y, sign, whether it stands to the left).
    """

    net: Net
    paths: list[Path] = field(default_factory=list)
    arrows: list[tuple[int, int]] = field(default_factory=list)
    marks: list[tuple[int, int, str, bool]] = field(default_factory=list)


@dataclass
class Placement:
    """A group laid out, seen from its upper left corner."""

    width: int
    height: int
    boxes: list[Placed]
    wires: list[Wire]
    entering: dict[Net, int]
    leaving: dict[Net, int]
    title: Title

    def shifted(self, dx: int, dy: int) -> tuple[list[Placed], list[Wire]]:
        """Its boxes and wires, seen from elsewhere."""
        for placed in self.boxes:
            placed.x, placed.y = placed.x + dx, placed.y + dy
        for wire in self.wires:
            wire.paths = [[(x + dx, y + dy) for x, y in path] for path in wire.paths]
            wire.arrows = [(x + dx, y + dy) for x, y in wire.arrows]
            wire.marks = [(x + dx, y + dy, text, up) for x, y, text, up in wire.marks]
        return self.boxes, self.wires


@dataclass(eq=False)
class Item:
    """What takes part in a layer: a box, a group, or a wire that passes through."""

    width: int
    height: int
    box: Box | None = None
    inner: Placement | None = None
    net: Net | None = None
    layer: int = 0
    x: int = 0
    y: int = 0
    above: dict[Net, int] = field(default_factory=dict)
    below: dict[Net, int] = field(default_factory=dict)

    @property
    def is_wire(self) -> bool:
        return self.box is None

    @property
    def center(self) -> float:
        return self.x + self.width / 2


@dataclass(eq=False)
class Link:
    """The part of a net between two layers."""

    net: Net
    upper: Item
    lowers: list[Item]

    @property
    def top(self) -> int:
        return self.upper.x + self.upper.below[self.net]

    @property
    def bottoms(self) -> list[int]:
        return [lower.x + lower.above[self.net] for lower in self.lowers]


def place(root: Box, nets: Iterable[Net], measure: Measure) -> Placement:
    """Lays out a diagram."""
    return _placed(root, list(nets), measure, {}, is_root=True)


def _placed(
    group: Box, nets: list[Net], measure: Measure, order: dict[Net, float], is_root: bool = False
) -> Placement:
    """Twice: the second time, the groups inside know from where their wires come."""
    first = _Level(group, nets, measure, order, {}, is_root)
    placement = first.placement()
    if not any(child.children for child in group.children):
        return placement
    return _Level(group, nets, measure, order, first.arrivals(), is_root).placement()


class _Level:
    """One group."""

    def __init__(
        self,
        group: Box,
        nets: list[Net],
        measure: Measure,
        order: dict[Net, float],
        arrivals: dict[int, dict[Net, float]],
        is_root: bool,
    ) -> None:
        self.group, self.measure, self.is_root = group, measure, is_root
        self.order_of_ports, self.inner_orders = order, arrivals
        self.items: list[Item] = []
        self.by_box: dict[int, Item] = {}
        for child in group.children:
            item = self._item(child, nets)
            self.items.append(item)
            for box in child.everything():
                self.by_box[id(box)] = item
        self.edges = self._edges(nets)
        self._assign_layers()
        self.layers, self.channels = self._with_wires()

    def _item(self, child: Box, nets: list[Net]) -> Item:
        if not child.children:
            width, height = self.measure.size(child)
            return Item(width, height, child)
        order = self.inner_orders.get(id(child), {})
        inner = _placed(child, nets, self.measure, order)
        item = Item(inner.width, inner.height, child, inner)
        item.above, item.below = dict(inner.entering), dict(inner.leaving)
        return item

    def _edges(self, nets: list[Net]) -> list[tuple[Net, Item, list[Item]]]:
        """For every net that is seen at this level: the upper item and the lower ones."""
        edges = []
        for net in nets:
            upper = self.by_box.get(id(net.upper))
            found = {id(low): self.by_box.get(id(low)) for low in net.lowers}
            lowers = list(dict.fromkeys(item for item in found.values() if item is not upper))
            inside: list[Item] = [item for item in lowers if item is not None]
            if upper is None and inside:
                upper = self._port(net)
            elif upper is None:
                continue
            if None in lowers and not self.is_root:
                inside.append(self._port(net))
            if inside:
                edges.append((net, upper, inside))
                for item in inside:
                    item.above.setdefault(net, 0)
                upper.below.setdefault(net, 0)
        return edges

    def _port(self, net: Net) -> Item:
        port = Item(1, 0, net=net)
        self.items.append(port)
        return port

    def _assign_layers(self) -> None:
        """As far up as possible, except what depends on nothing: that goes next to its use."""
        after: dict[int, list[Item]] = {}
        before: dict[int, int] = {id(item): 0 for item in self.items}
        for _, upper, lowers in self.edges:
            for lower in lowers:
                after.setdefault(id(upper), []).append(lower)
                before[id(lower)] += 1
        sources = [item for item in self.items if not before[id(item)]]
        ready = list(sources)
        while ready:
            item = ready.pop()
            for lower in after.get(id(item), ()):
                lower.layer = max(lower.layer, item.layer + 1)
                before[id(lower)] -= 1
                if not before[id(lower)]:
                    ready.append(lower)
        last = max((item.layer for item in self.items), default=0)
        for item in self.items:
            if item in sources and not item.is_wire and not (item.box and item.box.is_first):
                item.layer = min((x.layer for x in after.get(id(item), ())), default=1) - 1
            if item.is_wire and item.above:
                item.layer = max(last, 1 + max(x.layer for x in self.items if not x.is_wire))
            if item.box is not None and item.box.kind == "output":
                item.layer = last

    def _with_wires(self) -> tuple[list[list[Item]], list[list[Link]]]:
        """Every net cut into links between neighbouring layers, with wires in the layers passed."""
        count = 1 + max((item.layer for item in self.items), default=0)
        layers: list[list[Item]] = [[] for _ in range(count)]
        for item in self.items:
            layers[item.layer].append(item)
        channels: list[list[Link]] = [[] for _ in range(count)]
        for net, upper, lowers in self.edges:
            last = max(lower.layer for lower in lowers)
            for layer in range(upper.layer, last):
                reached = [lower for lower in lowers if lower.layer == layer + 1]
                if layer + 1 < last:
                    wire = Item(1, 0, net=net, layer=layer + 1, above={net: 0}, below={net: 0})
                    layers[layer + 1].append(wire)
                    reached.append(wire)
                channels[layer].append(Link(net, upper, reached))
                upper = reached[-1]
        return layers, channels

    def arrivals(self) -> dict[int, dict[Net, float]]:
        """For every inner group, from where the wires come, and where they go to."""
        found: dict[int, dict[Net, float]] = {}
        for channel in self.channels:
            for link in channel:
                if link.upper.inner:
                    found.setdefault(id(link.upper.box), {})[link.net] = _median(link.bottoms)
                for lower in link.lowers:
                    if lower.inner:
                        found.setdefault(id(lower.box), {})[link.net] = link.top
        return found

    def placement(self) -> Placement:
        """Orders the layers, straightens the wires, and routes them."""
        for layer in self.layers:
            layer.sort(key=lambda item: self.order_of_ports.get(item.net, 0.0) if item.net else 0.0)
            self._pack(layer)
        self._order()
        for sweep in range(SWEEPS):
            self._align(downwards=sweep % 2 == 1, both=sweep < 4)
        self._snap()
        return self._routed()

    def _snap(self) -> None:
        """Moves pins a little where that saves a kink."""
        for link in (link for channel in self.channels for link in channel):
            for lower in link.lowers:
                off = link.top - lower.x - lower.above[link.net]
                self._move_pin(lower, lower.above, link.net, off)
            if len(link.lowers) == 1:
                self._move_pin(link.upper, link.upper.below, link.net, link.bottoms[0] - link.top)

    def _move_pin(self, item: Item, pins: dict[Net, int], net: Net, by: int) -> None:
        if not _is_plain(item) or not 0 < abs(by) <= self.measure.snap:
            return
        goal, room = pins[net] + by, self.measure.wire_gap // 2
        free = all(abs(goal - at) >= room for other, at in pins.items() if other is not net)
        if free and room <= goal < item.width - room:
            pins[net] = goal

    def _pack(self, layer: list[Item]) -> None:
        x = 0
        for item in layer:
            item.x = x
            x += item.width + self._gap(item)

    def _gap(self, item: Item) -> int:
        return self.measure.wire_gap if item.is_wire else self.measure.gap

    def _order(self) -> None:
        best, kept = math.inf, [list(layer) for layer in self.layers]
        for sweep in range(2 * SWEEPS):
            self._spread_pins()
            crossings = sum(map(_crossings, self.channels))
            if crossings < best:
                best, kept = crossings, [list(layer) for layer in self.layers]
            indices = range(len(self.layers))
            for index in indices if sweep % 2 == 0 else reversed(indices):
                wanted = self._wanted(index, up=sweep % 2 == 0, down=sweep % 2 == 1)
                layer = self.layers[index]
                keys = [wanted.get(id(item), item.x) + item.width / 2 for item in layer]
                order = sorted(range(len(layer)), key=keys.__getitem__)
                self.layers[index] = [layer[place] for place in order]
                self._pack(self.layers[index])
        self.layers = kept
        for layer in self.layers:
            self._pack(layer)
        self._spread_pins()

    def _wanted(self, index: int, up: bool, down: bool) -> dict[int, float]:
        """Where the items of a layer would be straight below, or above, their neighbours."""
        pulls: dict[int, list[float]] = {}
        if up and index > 0:
            for link in self.channels[index - 1]:
                for lower in link.lowers:
                    pulls.setdefault(id(lower), []).append(link.top - lower.above[link.net])
        if down:
            for link in self.channels[index]:
                here = link.upper.below[link.net]
                pulls.setdefault(id(link.upper), []).extend(x - here for x in link.bottoms)
        return {item: _median(values) for item, values in pulls.items()}

    def _align(self, downwards: bool, both: bool) -> None:
        indices = range(len(self.layers))
        for index in indices if downwards else reversed(indices):
            above = self._wanted(index, up=True, down=both)
            below = self._wanted(index, up=both, down=True)
            wanted = {**below, **above} if downwards else {**above, **below}
            long = self._long_wires(index, downwards)
            self._settle(self.layers[index], wanted, long)
            self._spread_pins()

    def _long_wires(self, index: int, downwards: bool) -> set[int]:
        """The wires of a layer that were wires in the layer before."""
        channel = self.channels[index - 1] if downwards and index > 0 else self.channels[index]
        pairs = ((link.upper, lower) for link in channel for lower in link.lowers)
        both = [pair for pair in pairs if pair[0].is_wire and pair[1].is_wire]
        return {id(pair[downwards]) for pair in both}

    def _settle(self, layer: list[Item], wanted: dict[int, float], long: set[int]) -> None:
        """The places nearest to those wanted that keep the order and the gaps."""
        blocks: list[tuple[float, float, int]] = []
        offset, offsets = 0, []
        for item in layer:
            weight = WIRE_WEIGHT if item.is_wire else 1.0
            weight = LONG_WIRE_WEIGHT if id(item) in long else weight
            weight = weight if id(item) in wanted else 1e-3
            blocks.append((wanted.get(id(item), item.x) - offset, weight, 1))
            offsets.append(offset)
            offset += item.width + self._gap(item)
            while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
                (a, wa, na), (b, wb, nb) = blocks[-2:]
                blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
        places = [value for value, _, count in blocks for _ in range(count)]
        for item, value, offset in zip(layer, places, offsets, strict=True):
            item.x = round(value) + offset

    def _spread_pins(self) -> None:
        """Gives the pins of plain boxes places in the order in which their wires arrive."""
        arriving: dict[int, list[tuple[float, Net]]] = {}
        departing: dict[int, list[tuple[float, Net]]] = {}
        for channel in self.channels:
            for link in channel:
                ends = [lower.center for lower in link.lowers]
                departing.setdefault(id(link.upper), []).append((_median(ends), link.net))
                for lower in link.lowers:
                    arriving.setdefault(id(lower), []).append((link.top, link.net))
        for item in self.items:
            if _is_plain(item):
                item.above.update(_spread(arriving.get(id(item), []), item.width))
                item.below.update(_spread(departing.get(id(item), []), item.width))

    def _routed(self) -> Placement:
        side, with_title, without = (0, 0, 0) if self.is_root else self.measure.pad
        left = min((item.x for layer in self.layers for item in layer), default=0)
        right = max((item.x + item.width for layer in self.layers for item in layer), default=0)
        for layer in self.layers:
            for item in layer:
                item.x += side - left
        width, title = self._titled(right - left + 2 * side)
        above, below = (without, with_title) if title.below else (with_title, without)
        wires: list[Wire] = []
        y = above
        for layer, channel in zip(self.layers, self.channels, strict=True):
            height = max((item.height for item in layer), default=0)
            for item in layer:
                item.y = y if item.is_wire else y + (height - item.height) // 2
                if item.net and height:
                    wires.append(Wire(item.net, [[(item.x, y), (item.x, y + height)]]))
            y = self._route(channel, y + height, wires)
        boxes: list[Placed] = []
        for item in self.items:
            if item.box is None:
                continue
            inner_title = item.inner.title if item.inner else Title()
            boxes.append(Placed(item.box, item.x, item.y, item.width, item.height, inner_title))
            if item.inner:
                inner_boxes, inner_wires = item.inner.shifted(item.x, item.y)
                boxes += inner_boxes
                wires += inner_wires
        for item in self.items:
            if item.net and not self.is_root:
                ends = (y, y + below) if item.above else (0, above)
                wires.append(Wire(item.net, [[(item.x, ends[0]), (item.x, ends[1])]]))
        entering, leaving = self._ports(), self._ports(leaving=True)
        return Placement(width, y + below, boxes, wires, entering, leaving, title)

    def _route(self, channel: list[Link], top: int, wires: list[Wire]) -> int:
        """Draws the links below a layer; returns where the next layer begins."""
        if not channel:
            return top
        tracks = _tracks(channel, self.measure.wire_gap)
        used = 1 + max(tracks.values(), default=-1)
        measure = self.measure
        has_arrows = any(_is_plain(lower) for link in channel for lower in link.lowers)
        after = measure.after if has_arrows or used else 0
        bottom = top + measure.before + used * measure.track + after
        for link in channel:
            wire = Wire(link.net)
            start = top if link.upper.is_wire else link.upper.y + link.upper.height
            y = top + measure.before + tracks.get(id(link), 0) * measure.track
            for lower, x in zip(link.lowers, link.bottoms, strict=True):
                # an item lower than its layer is centred in it
                layer_height = self._height(lower)
                end = bottom + (layer_height - lower.height) // 2 if not lower.is_wire else bottom
                corners = [] if x == link.top else [(link.top, y), (x, y)]
                wire.paths.append([(link.top, start), *corners, (x, end)])
                if _is_plain(lower):
                    mark = link.net.marks.get(id(lower.box), "")
                    if mark:
                        is_left = lower.above[link.net] < lower.width // 2
                        wire.marks.append((x, end, mark, is_left))
                    if not link.net.upward:
                        wire.arrows.append((x, end))
            if link.net.upward and _is_plain(link.upper):
                wire.arrows.append((link.top, start))
            wires.append(wire)
        return bottom

    def _height(self, item: Item) -> int:
        return max(other.height for other in self.layers[item.layer])

    def _ports(self, leaving: bool = False) -> dict[Net, int]:
        """Where the wires pass the upper frame, or the lower one."""
        wires = (item for item in self.items if item.net and bool(item.above) is leaving)
        return {item.net: item.x for item in wires if item.net}

    def _titled(self, width: int) -> tuple[int, Title]:
        """The width of the group, and a place for its title where no wire crosses it."""
        if self.is_root:
            return width, Title()
        pad, title = self.measure.pad[0], self.measure.title(self.group)
        room = title + pad + self.measure.wire_gap // 2
        width = max(width, room)
        for below in (False, True):
            edges = [0, *sorted(self._ports(below).values()), width]
            for left, right in itertools.pairwise(edges):
                if right - left >= room:
                    return width, Title(left + pad, below)
        last = max(self._ports().values())
        return last + room, Title(last + pad)


def _is_plain(item: Item) -> bool:
    return item.box is not None and item.inner is None


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def _spread(pins: list[tuple[float, Net]], width: int) -> dict[Net, int]:
    ordered = [net for _, net in sorted(pins, key=lambda pin: pin[0])]
    count = len(ordered)
    return {net: round((k + 1) * width / (count + 1) - 0.5) for k, net in enumerate(ordered)}


def _crossings(channel: list[Link]) -> int:
    ends = [(link.top, x) for link in channel for x in link.bottoms]
    pairs = ((a, b) for i, a in enumerate(ends) for b in ends[i + 1 :])
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs)


def _tracks(channel: list[Link], gap: int) -> dict[int, int]:
    """A track for the horizontal part of each link, without two wires on top of each other."""
    spans = {
        id(link): (min(link.top, *link.bottoms), max(link.top, *link.bottoms)) for link in channel
    }
    waiting = [link for link in channel if spans[id(link)][0] < spans[id(link)][1]]
    tracks: dict[int, int] = {}
    track = 0
    while waiting:
        # a wire that comes down where another one ends must turn off above it
        free = [a for a in waiting if not any(_must_precede(b, a) for b in waiting if b is not a)]
        reach = -math.inf
        for link in sorted(free or waiting[:1], key=lambda link: spans[id(link)]):
            left, right = spans[id(link)]
            if left > reach + gap:
                tracks[id(link)] = track
                reach = right
        waiting = [link for link in waiting if id(link) not in tracks]
        track += 1
    return tracks


def _must_precede(first: Link, second: Link) -> bool:
    return first.top in second.bottoms and first.net is not second.net

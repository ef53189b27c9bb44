"""Diagrams: what they show, that nothing overlaps, and how they are written."""

import itertools
import sys
import xml.etree.ElementTree as ElementTree

import optax
import pytest
from gradchain import chain, draw, flow, named
from gradchain.optimizers import adamw, cautious, lion, lookahead, sophia_h
from gradchain.transforms import (
    FlowError,
    debias,
    delay,
    ema,
    every,
    leaf_norm,
    lift,
    merge,
    scale_by_learning_rate,
    split,
    sqrt,
    square,
    where,
)
from gradchain.transforms.inspection.drawing.diagram import diagram_of
from gradchain.transforms.inspection.drawing.picture import picture_of
from gradchain.transforms.inspection.drawing.placement import Measure, place
from gradchain.transforms.inspection.drawing.text import as_text
from gradchain.transforms.notation import matrices


def belief():
    def step(g):
        m = g >> named("mu", ema(0.9))
        s = square(g - m) >> named("nu", ema(0.999))
        return (m >> debias(0.9)) / (sqrt(s >> debias(0.999)) + 1e-8)

    return flow(step)


def parted():
    def step(g, params, value):
        wide, others = split(g, matrices)
        past = delay(wide, name="past")
        held = wide >> every(3, chain(ema(0.9), ema(0.5)))
        past << where(value > 0, held - past, past)
        return merge(past.written, others * leaf_norm(params))

    return flow(step)


SUBJECTS = {
    "belief": belief(),
    "adamw": adamw(1e-3),
    "sophia_h": sophia_h(1e-3),
    "wrapped": lookahead(cautious(lion(1e-3))),
    "parted": parted(),
    "optax": optax.adam(0.1),
    "mixed": optax.chain(optax.clip(1.0), chain(belief(), scale_by_learning_rate(0.1))),
    "identity": flow(lambda g: g),
}
DEPTHS = (0, 1, 2, None)
MEASURE = Measure(
    size=lambda box: (len(box.title) + 4, 3),
    title=lambda box: len(box.title),
    gap=3,
    wire_gap=2,
    before=1,
    track=1,
    after=1,
    pad=(2, 1, 1),
    snap=1,
)
everywhere = pytest.mark.parametrize("depth", DEPTHS)
every_subject = pytest.mark.parametrize("name", SUBJECTS)


def titles(diagram):
    return [box.title for box in diagram.root.everything()]


def test_in_a_terminal():
    opt = chain(named("mu", ema(0.9)), scale_by_learning_rate(0.1))
    text = str(draw(opt, depth=1))
    assert text.splitlines()[0].strip() == "( g )"
    assert text.splitlines()[-1].strip() == "( update )"
    assert text.count("▼") >= 4
    assert "mu z⁻¹" in text
    assert "▲" in text
    assert "┆" in text
    assert "mu z⁻¹" not in str(draw(opt, depth=0))


def test_a_console_shows_the_drawing_itself():
    drawing = draw(optax.sgd(0.1))
    assert repr(drawing) == str(drawing)


def test_a_node_used_twice_appears_once():
    def step(g):
        m = g >> named("mu", ema(0.9))
        return m * leaf_norm(m) + m

    shown = titles(diagram_of(flow(step), 1))
    assert shown.count("mu: ema") == 1
    net = next(n for n in diagram_of(flow(step), 1).nets if n.upper.title == "mu: ema")
    assert len(net.lowers) == 3


def test_depth():
    assert titles(diagram_of(belief(), 1)).count("mu z⁻¹") == 0
    assert titles(diagram_of(belief(), 2)).count("mu z⁻¹") == 1
    opt = chain(belief(), scale_by_learning_rate(0.1))
    assert "mu: ema" not in titles(diagram_of(opt, 0))
    assert "mu: ema" in titles(diagram_of(opt, 1))
    assert "× 0.9" not in titles(diagram_of(opt, 1))
    assert "× 0.9" in titles(diagram_of(opt, None))


def test_delays_are_dashed_and_run_upwards():
    diagram = diagram_of(chain(ema(0.9)), None)
    (back,) = [net for net in diagram.nets if net.dashed]
    assert back.upward
    assert back.upper.title == "ema z⁻¹"
    assert back.upper.stateful


def test_inputs_are_named_and_optional_ones_marked():
    shown = titles(diagram_of(parted(), 1))
    assert {"g", "params", "value", "update"} <= set(shown)
    optional = flow(lambda g, hint=None: where(hint, g, g))
    assert "hint?" in titles(diagram_of(optional, 1))


def test_what_is_held_is_shown_inside():
    shown = titles(diagram_of(sophia_h(1e-3), None))
    assert "g" in shown
    assert "value_fn" in shown


def test_the_order_of_a_difference_is_marked():
    diagram = diagram_of(flow(lambda g, params: (g - params) / (params + 1)), 1)
    marks = [mark for net in diagram.nets for mark in net.marks.values()]
    assert sorted(marks) == ["÷", "−"]


@every_subject
@everywhere
def test_boxes_lie_within_their_groups_and_apart_from_each_other(name, depth):
    diagram = diagram_of(SUBJECTS[name], depth)
    at = {id(p.box): p for p in place(diagram.root, diagram.nets, MEASURE).boxes}

    def check(group):
        placed = [at[id(child)] for child in group.children]
        for i, a in enumerate(placed):
            if group is not diagram.root:
                frame = at[id(group)]
                assert frame.x < a.x
                assert a.x + a.width < frame.x + frame.width
                assert frame.y < a.y
                assert a.y + a.height < frame.y + frame.height
            for b in placed[i + 1 :]:
                apart_x = a.x + a.width <= b.x or b.x + b.width <= a.x
                apart_y = a.y + a.height <= b.y or b.y + b.height <= a.y
                assert apart_x or apart_y, (a.box.title, b.box.title)
            check(a.box)

    check(diagram.root)


@every_subject
@everywhere
def test_every_wire_ends_at_its_boxes_and_crosses_none(name, depth):
    diagram = diagram_of(SUBJECTS[name], depth)
    placement = place(diagram.root, diagram.nets, MEASURE)
    plain = [p for p in placement.boxes if not p.box.children]
    for net in diagram.nets:
        ends = {
            (x, y) for w in placement.wires if w.net is net for path in w.paths for x, y in path
        }
        for box in (net.upper, *net.lowers):
            p = next(p for p in plain if p.box is box)
            sides = (p.y, p.y + p.height)
            assert any(p.x <= x < p.x + p.width and y in sides for x, y in ends)
    for wire in placement.wires:
        for path in wire.paths:
            for (x1, y1), (x2, y2) in itertools.pairwise(path):
                assert x1 == x2 or y1 == y2
                for p in plain:
                    beside = max(x1, x2) < p.x or min(x1, x2) >= p.x + p.width
                    away = max(y1, y2) <= p.y or min(y1, y2) >= p.y + p.height
                    assert beside or away, (wire.net.upper.title, p.box.title)


@every_subject
@everywhere
def test_text_has_no_box_written_over(name, depth):
    diagram = diagram_of(SUBJECTS[name], depth)
    text = as_text(diagram)
    for box in diagram.root.everything():
        if box is not diagram.root:
            assert box.title in text


@every_subject
def test_svg_is_well_formed_and_self_contained(name, tmp_path):
    path = tmp_path / "drawing.svg"
    drawing = draw(SUBJECTS[name], path)
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"g", "update"} <= words
    assert "href" not in path.read_text(encoding="utf-8")
    assert drawing.svg() == drawing._repr_svg_() == path.read_text(encoding="utf-8")


def test_notebooks_show_flows():
    assert chain(ema(0.9))._repr_svg_().startswith("<svg")


def test_png(tmp_path):
    path = tmp_path / "drawing.png"
    draw(belief(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_png_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(FlowError, match=r"gradchain\[draw\]"):
        draw(belief(), tmp_path / "drawing.png")


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(FlowError, match=r"svg or \.png"):
        draw(belief(), tmp_path / "drawing.jpg")
    with pytest.raises(FlowError, match="depth=-1"):
        draw(belief(), depth=-1)


def test_state_is_coloured():
    picture = picture_of(diagram_of(chain(named("mu", ema(0.9))), 1))
    fills = [shape.look.fill for shape in picture.shapes if hasattr(shape, "look")]
    assert fills.count("#fdecc8") == 1


def test_labels_are_escaped():
    opt = flow(lambda g: lift(abs, "a<b")(where(g < 2, g, g)))
    ElementTree.fromstring(draw(opt).svg())


def test_traced_hyperparameters_are_drawn():
    import jax

    shown = []

    def traced(b):
        shown.append(str(draw(chain(ema(b)), depth=None)))
        return b

    jax.make_jaxpr(traced)(0.5)
    assert "mu" in shown[0] or "ema" in shown[0]


def test_every_method_can_be_drawn():
    from samples import sample
    from subjects import NAMES

    for name in NAMES[::4]:
        assert "( update )" in str(draw(sample(name), depth=1))

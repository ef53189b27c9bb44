"""Imports run one way (docs/structure.md): no circle, nothing below knows what is above."""

import runpy
from pathlib import Path

import gradchain
import pytest

STRUCTURE = runpy.run_path(str(Path(gradchain.__file__).parent / "docs" / "structure.py"))
LAYERS, MODULES = STRUCTURE["LAYERS"], STRUCTURE["MODULES"]
graph, circles, imported = STRUCTURE["graph"], STRUCTURE["circles"], STRUCTURE["imported"]
layer_of, family_of, floors = STRUCTURE["layer_of"], STRUCTURE["family_of"], STRUCTURE["floors"]


def test_every_import_is_of_a_module_that_exists():
    missing = {(a, b) for a, targets in graph().items() for b in targets if b not in MODULES}
    assert not missing
    assert len(MODULES) > 200


def test_there_is_no_circle():
    assert circles(graph()) == []


def test_nothing_below_knows_what_is_above():
    upward = [
        f"{name} ({LAYERS[layer_of(name)][0]}) imports {target} ({LAYERS[layer_of(target)][0]})"
        for name, targets in graph().items()
        for target in targets
        if layer_of(target) > layer_of(name)
    ]
    assert upward == []


def test_primitives_do_not_know_what_looks_at_flows():
    looking = "transforms.inspection"
    across = [
        (name, target)
        for name, targets in graph().items()
        for target in targets
        if layer_of(name) == layer_of(target) == 1
        and name.startswith(looking) != target.startswith(looking)
    ]
    assert across == []


def test_no_family_imports_another():
    across = [
        (name, target)
        for name, targets in graph().items()
        for target in targets
        if family_of(name) and family_of(target) and family_of(name) != family_of(target)
    ]
    assert across == []


@pytest.mark.parametrize(
    "source",
    [
        "from .b import x",
        "from . import b",
        "import gradchain.p.b",
        "from gradchain.p import b",
        "from gradchain.p.b import x",
        "def f():\n    from .b import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import x",
    ],
)
def test_every_form_of_import_is_seen(source):
    """The reading itself: a circle of two is found however one of them says it."""
    known = {"p": None, "p.a": None, "p.b": None}
    assert set(imported("p.a", source, False, known)) == {"p.b"}
    assert circles({"p": set(), "p.a": {"p.b"}, "p.b": {"p.a"}}) == [
        ["p.a", "p.b"],
        ["p.b", "p.a"],
    ]


def test_layers_are_told_apart():
    names = ("transforms.notation.signal", "transforms.accumulate.ema", "transforms", "registry")
    assert [layer_of(name) for name in names] == [0, 1, 2, 3]
    names = ("schedules.wsd", "optimizers.x", "training", "catalogue", "")
    assert [layer_of(name) for name in names] == [4, 5, 5, 6, 7]


def test_floors_stand_above_what_they_import():
    edges = {"c": {"a", "b"}, "b": {"a"}, "a": set(), "d": set()}
    assert floors(edges) == [["a", "d"], ["b"], ["c"]]
    with pytest.raises(ValueError, match="circles"):
        floors({"a": {"b"}, "b": {"a"}})

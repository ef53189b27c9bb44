"""Imports run one way (DESIGN, section 1): no circle, nothing below knows what is above.

Read from the source, so that imports within functions and those for type checkers count as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import gradchain
import pytest

ROOT = Path(gradchain.__file__).parent
PACKAGE = "gradchain"
OUTSIDE = {"tests", "examples", "benchmarks", "docs", "build", "dist", "setup.py", "scripts"}

LAYERS = (
    ("the notation", ("transforms.notation",)),
    ("primitives, and what looks at flows", ("transforms.*",)),
    ("all transforms", ("transforms",)),
    ("the registry", ("registry",)),
    ("schedules", ("schedules",)),
    ("optimizers, layers, training", ("*",)),
    ("the catalogue", ("catalogue",)),
    ("the public face", ("",)),
)
"""From the bottom up; `*` stands for whatever no other layer names."""


def modules() -> dict[str, Path]:
    """Dotted name within the package ("" for the root) -> file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        first = path.relative_to(ROOT).parts[0]
        if first in OUTSIDE or first.startswith("."):
            continue
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, source: str, is_package: bool, known: dict) -> Iterator[str]:
    """The modules of the package that a source imports, wherever in it."""
    around = name.split(".") if name else []
    if not is_package:
        around = around[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
            yield from (".".join(t[1:]) for t in targets if t[0] == PACKAGE)
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module.split(".") if node.module else []
        if node.level:
            base = around[: len(around) - node.level + 1] + module
        elif module[0] == PACKAGE:
            base = module[1:]
        else:
            continue
        for alias in node.names:
            inner = ".".join([*base, alias.name])
            yield inner if inner in known else ".".join(base)


def graph() -> dict[str, set[str]]:
    return {
        name: set(imported(name, path.read_text(), path.name == "__init__.py", MODULES)) - {name}
        for name, path in MODULES.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """What is left when every module without an import among the others is taken away."""
    left = {name: {to for to in targets if to in edges} for name, targets in edges.items()}
    for side in (left, _turned(left)):
        while free := [name for name in left if not (side[name] & left.keys())]:
            for name in free:
                del left[name]
    return [[name, *sorted(left[name] & left.keys())] for name in left]


def _turned(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    turned: dict[str, set[str]] = {name: set() for name in edges}
    for name, targets in edges.items():
        for target in targets:
            turned[target].add(name)
    return turned


def layer_of(name: str) -> int:
    """The number of the first layer that names the module or a package around it."""
    rest = next(n for n, (_, members) in enumerate(LAYERS) if members == ("*",))
    for number, (_, members) in enumerate(LAYERS):
        for member in members:
            package = member.removesuffix(".*")
            if name.startswith(f"{package}.") or (name == package and member == package):
                return number
    return rest


def family_of(name: str) -> str | None:
    """The family under `optimizers/` that a module belongs to."""
    parts = name.split(".")
    return parts[1] if parts[0] == "optimizers" and len(parts) > 1 else None


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

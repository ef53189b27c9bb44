"""Who imports whom in the package: what `docs/structure.md` shows and a test holds.

Read from the source, so that imports within functions and those for type checkers count as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
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

Graph = dict[str, set[str]]


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


def imported(name: str, source: str, is_package: bool, known: dict[str, Path]) -> Iterator[str]:
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


def graph() -> Graph:
    """Module -> the modules that it imports."""
    return {
        name: set(imported(name, path.read_text(), path.name == "__init__.py", MODULES)) - {name}
        for name, path in MODULES.items()
    }


def circles(edges: Graph) -> list[list[str]]:
    """What is left when every module without an import among the others is taken away."""
    left = {name: {to for to in targets if to in edges} for name, targets in edges.items()}
    for side in (left, _turned(left)):
        while free := [name for name in left if not (side[name] & left.keys())]:
            for name in free:
                del left[name]
    return [[name, *sorted(left[name] & left.keys())] for name in left]


def _turned(edges: Graph) -> Graph:
    turned: Graph = {name: set() for name in edges}
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


def floors(edges: Graph) -> list[list[str]]:
    """Modules of a graph without circles, each above all that it imports."""
    left, found = dict(edges), []
    while left:
        floor = sorted(name for name, targets in left.items() if not (targets & left.keys()))
        if not floor:
            raise ValueError(f"circles: {circles(left)}")
        found.append(floor)
        for name in floor:
            del left[name]
    return found


def page() -> str:
    """The text of `docs/structure.md`."""
    edges = graph()
    notation = "transforms.notation"
    inside = {
        name.removeprefix(f"{notation}."): {
            target.removeprefix(f"{notation}.")
            for target in targets
            if target.startswith(f"{notation}.")
        }
        for name, targets in edges.items()
        if name.startswith(f"{notation}.")
    }
    return "\n".join([*_head(edges), *_files(inside, notation)]) + "\n"


def _head(edges: Graph) -> Iterator[str]:
    yield "# Structure"
    yield ""
    yield "Imports run one way, from the notation up, those within functions and those for type"
    yield "checkers included: no circle, no import against the layers below, and no family of"
    yield "optimizers imports another. `tests/test_imports_run_one_way.py` holds it. Generated by"
    yield "`python docs/make_tables.py`."
    yield ""
    yield "## Layers"
    yield ""
    yield "From the bottom up; a folder imports what is below it."
    yield ""
    yield "| layer | folders and files |"
    yield "|---|---|"
    for number, (title, _) in enumerate(LAYERS):
        members = {_folder(name) for name in edges if layer_of(name) == number}
        yield f"| {title} | {', '.join(f'`{member}`' for member in sorted(members))} |"
    yield ""


def _folder(name: str) -> str:
    """The folder that a module is known by, one level deeper in `transforms` and `optimizers`."""
    parts = name.split(".")
    depth = 2 if parts[0] in ("transforms", "optimizers") and len(parts) > 1 else 1
    return "/".join(parts[:depth]) or PACKAGE


def _files(inside: Graph, package: str) -> Iterator[str]:
    yield "## The notation, file by file"
    yield ""
    yield "Each stands above all that it imports, so it can be read from top to bottom."
    yield ""
    yield "| floor | file | what it is | imports |"
    yield "|---|---|---|---|"
    for number, floor in enumerate(floors(inside)):
        for name in floor:
            doc = ast.get_docstring(ast.parse(MODULES[f"{package}.{name}"].read_text())) or ""
            uses = ", ".join(f"`{used}`" for used in sorted(inside[name])) or "-"
            yield f"| {number} | `{name}` | {doc.splitlines()[0]} | {uses} |"

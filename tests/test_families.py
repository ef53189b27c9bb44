"""Families are rooms: each method lives in one, and no family imports another."""

import ast
from pathlib import Path

import pytest
from gradchain import optimizers
from gradchain.catalogue import METHODS

ROOT = Path(optimizers.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def imported_families(path: Path) -> set[str]:
    """The families that the file's imports name, relative and absolute ones."""
    package = ("gradchain", "optimizers", *path.relative_to(ROOT).parent.parts)
    targets = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*base, *(node.module or "").split("."))
            targets += [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            targets += [tuple(alias.name.split(".")) for alias in node.names]
    start = ("gradchain", "optimizers")
    return {target[2] for target in targets if target[:2] == start and len(target) > 2}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_family_imports_another(path):
    assert imported_families(path) <= {path.relative_to(ROOT).parts[0]}


def test_a_file_of_wrappers_is_seen_to_import_its_family():
    assert imported_families(ROOT / "wrappers" / "grams.py") == {"wrappers"}


def test_every_method_is_in_one_family_and_importable_by_name():
    folders = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert {entry.family for entry in METHODS.values()} == folders
    factories = [entry.factory for entry in METHODS.values()]
    assert all(getattr(optimizers, factory.__name__) is factory for factory in factories)
    assert len(optimizers.__all__) == len(set(optimizers.__all__))

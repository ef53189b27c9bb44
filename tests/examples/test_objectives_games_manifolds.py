"""The examples of several losses, games and manifolds run, and their tables say what they claim."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, arguments, monkeypatch, capsys):
    """What an example prints."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("COLUMNS", "200")
    assert importlib.import_module(name).main(arguments) == 0
    return capsys.readouterr().out


def rows(printed):
    """The cells of a table, line by line."""
    return [
        [c.strip() for c in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line
    ]


def test_descent_circles_and_the_others_arrive(monkeypatch, capsys, tmp_path):
    path = tmp_path / "games.png"
    printed = run("games", ["--gan-steps", "0", "--plot", str(path)], monkeypatch, capsys)
    for _, name, first, last in rows(printed):
        arrives = float(last) < 0.05 * float(first)
        assert arrives != ("sgd" in name), (name, last)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_tree_is_embedded(monkeypatch, capsys, tmp_path):
    path = tmp_path / "disk.png"
    arguments = ["--steps", "150", "--plot", str(path)]
    printed = run("poincare_embedding", arguments, monkeypatch, capsys)
    found = {name: (float(a), float(b)) for name, a, b, _ in rows(printed)}
    assert all(last < first for first, last in found.values())
    assert found["riemannian_adam"][1] < found["rsgd"][1]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_three_tasks_train_together(monkeypatch, capsys, tmp_path):
    path = tmp_path / "tasks.png"
    arguments = ["--steps", "200", "--rules", "plain sum", "mgda", "--plot", str(path)]
    printed = run("multi_task_digits", arguments, monkeypatch, capsys)
    for name, *losses, digits, _ in rows(printed):
        assert all(float(loss) < 0.95 for loss in losses), name
        assert float(digits.rstrip("%")) > 40, name
    assert path.read_bytes().startswith(b"\x89PNG")


def test_unknown_rules_are_refused(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with pytest.raises(SystemExit):
        importlib.import_module("multi_task_digits").main(["--rules", "upgrade"])
    assert "upgrade" in capsys.readouterr().err

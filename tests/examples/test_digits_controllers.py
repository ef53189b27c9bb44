"""The digits example under controllers: decisions on the display and in the file, one program."""

import json
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import digits_controllers

    terminal = partial(Console, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(digits_controllers, "Console", terminal)
    monkeypatch.setattr(digits_controllers, "CURVATURE_BATCH", 16)
    monkeypatch.setattr(digits_controllers, "CURVATURE_INTERVAL", 2)
    return digits_controllers


@pytest.mark.parametrize(
    ("controller", "steps", "shown"),
    [
        ("auto_lrs", 100, "restore"),
        ("adadagrad", 80, "batch_size"),
        ("lanczos_lr_momentum", 4, "momentum"),
    ],
)
def test_decisions(controller, steps, shown, example, tmp_path, capsys):
    path, before = tmp_path / "found.json", example.train_step._cache_size()
    arguments = ["--controller", controller, "--steps", str(steps), "--json", str(path)]
    assert example.main(arguments) == 0
    found, printed = json.loads(path.read_text()), capsys.readouterr().out
    assert found["controller"] == controller
    assert f"{len(found['decisions'])} decisions in {steps} steps" in printed
    assert shown in printed
    assert len(found["losses"]) == steps
    made = found["decisions"]
    compiled = example.train_step._cache_size() - before
    if controller == "auto_lrs":
        assert [row["step"] for row in made] == [0, 16, 32, 48, 64, 80]
        assert made[-1]["learning_rate"] in [row["learning_rate"] for row in made[:-1]]
        assert compiled == 1
    elif controller == "adadagrad":
        sizes = [row["batch_size"] for row in made]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] > 16
        assert compiled == 1 + len(sizes)  # a program for each batch size
    else:
        assert [row["step"] for row in made] == [0, 2]
        assert all(row["learning_rate"] > 0 for row in made)
        assert all(0 < row["momentum"] <= 0.9 + 1e-6 for row in made)
        assert compiled == 1

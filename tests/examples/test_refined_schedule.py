"""The second run's rates are what the first one's gradient norms ask for."""

import json
from pathlib import Path

import numpy as np
import pytest
from gradchain.schedules import refined_schedule
from matplotlib.image import imread

SMALL = ["--steps", "24", "--batch-size", "4", "--context", "8", "--width", "8"]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import refined_schedule

    return refined_schedule


def test_two_runs(example, tmp_path, capsys):
    files = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "found.png")]
    assert example.main([*SMALL, *files]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    # half of the rate at 16 windows, for a quarter of them
    assert found["peak"] == pytest.approx(2e-3)
    first, second = found["runs"]["wsd"], found["runs"]["refined"]
    expected = refined_schedule(first["norms"], "adam", peak_value=2e-3)
    np.testing.assert_allclose(second["rates"], expected, rtol=1e-5, atol=1e-9)
    assert min(first["norms"]) > 0
    assert first["train"][0] == second["train"][0]
    assert first["train"] != second["train"]
    for name, run in found["runs"].items():
        assert run["train"][-1] < run["train"][0]
        assert f"{name}: validation loss {run['validation'][-1][1]:.4f}" in printed
    assert "the step law" in printed
    assert imread(tmp_path / "found.png").shape[1] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peak", "high"], "high"),
        (["--schedule", "wds"], "did you mean wsd"),
        (["--steps", "1"], "at least 2"),
    ],
)
def test_refuses(arguments, message, example, capsys):
    assert example.main([*SMALL, *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1

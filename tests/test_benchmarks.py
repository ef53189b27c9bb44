"""The scripts that measure run, on tiny trees, and their figures hang together."""

import importlib
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def test_step_cost(tmp_path, capsys):
    script = importlib.import_module("step_cost")
    files = ["--json", str(tmp_path / "cost.json"), "--plot", str(tmp_path / "cost.png")]
    script.main(["adamw", "lion", "--trees", "small", *files])
    rows = json.loads((tmp_path / "cost.json").read_text())["small"]
    printed = capsys.readouterr().out
    for row in rows:
        assert f"`{row['name']}`" in printed
        assert 0 < row["step"] < float("inf")
        assert 0 < row["floor"] < float("inf")
        assert row["lines"] > 1
    by_name = {row["name"]: row for row in rows}
    assert by_name["adamw"]["state"] == by_name["optax adamw"]["state"]
    assert by_name["lion"]["state"] == pytest.approx(4)
    count = 3 * 8 * 8
    assert by_name["lion"]["moved"] == 3 * 4 * count + 2 * 4 * count
    assert imread(tmp_path / "cost.png").shape[1] > 300


def test_accelerator_in_small(tmp_path, capsys):
    script = importlib.import_module("accelerator")
    script.main(["--small", "--json", str(tmp_path / "found.json")])
    assert "% of the copy bandwidth" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["AdamW, small"]["rows"][0]["name"] == "adamw"
    script.main(["--small", "--seconds", "-1"])
    assert capsys.readouterr().out.count("left out") == 2

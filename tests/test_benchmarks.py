"""The scripts that measure run, on tiny trees, and their figures hang together."""

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
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


def test_tuning_free_in_small(tmp_path, capsys, monkeypatch):
    script = importlib.import_module("tuning_free")

    def small():
        return script.Task(
            init_params=lambda key: {"w": jnp.ones(4)},
            loss=lambda params, batch: jnp.sum((params["w"] - batch) ** 2),
            batch=lambda key, step: jax.random.normal(jax.random.fold_in(key, step), (4,)) / 10,
            held_out=jnp.zeros(4),
            guess=5.0,
        )

    monkeypatch.setattr(script, "TASKS", {"small": small})
    files = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "found.png")]
    script.main(["--methods", "sgd_hd", "--points", "3", "--steps", "40", *files])
    found = json.loads((tmp_path / "found.json").read_text())["small"]
    assert found["factors"] == pytest.approx([0.01, 1, 100])
    assert set(found["rows"]) == {"adamw", "sgd_hd"}
    assert found["tuned"] == min(found["rows"]["adamw"]["losses"]) < 1
    for row in found["rows"].values():
        assert row["middle"] == row["losses"][1]
        assert row["spread"] == max(row["losses"]) - min(row["losses"])
        near = [loss <= 5 - 0.9 * (5 - found["tuned"]) for loss in row["losses"]]
        assert row["near"] == sum(near) / 3
    # at a hundred times its rate of 0.05 it diverges, and counts as the guess
    assert found["rows"]["sgd_hd"]["losses"][2] == 5.0
    printed = capsys.readouterr().out
    assert all(f"| `{name}` |" in printed for name in found["rows"])
    assert imread(tmp_path / "found.png").shape[1] > 300

"""The scripts that measure run, on tiny trees, and their figures hang together."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from gradchain.catalogue import get_method
from matplotlib.image import imread

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def test_step_cost(tmp_path, capsys):
    script = importlib.import_module("step_cost")
    files = ["--json", str(tmp_path / "cost.json"), "--plot", str(tmp_path / "cost.png")]
    report = ["--report", "--small", *files]
    script.main(["adamw", *report])
    script.main(["adamw", "lion", *report, "--continue"])
    found = json.loads((tmp_path / "cost.json").read_text())
    assert list(found["trees"]) == ["small", "4 x 64x64"]
    names = [[row["name"] for row in rows] for rows in found["trees"].values()]
    assert all(each.count("adamw") == 1 and "lion" in each for each in names)
    assert imread(tmp_path / "cost_growth.png").shape[1] > 300
    rows = found["trees"]["small"]
    assert found["versions"]["jax"] == jax.__version__
    printed = capsys.readouterr().out
    for row in rows:
        assert f"`{row['name']}`" in printed
        assert 0 < row["step"] < float("inf")
        assert 0 < row["floor"] < float("inf")
        assert row["lines"] > 1
    by_name = {row["name"]: row for row in rows}
    assert by_name["adamw"]["state"] == by_name["optax adamw"]["state"]
    assert by_name["lion"]["state"] == pytest.approx(4)
    for name in ("adamw", "lion"):  # a kernel for each result, and no copy
        assert by_name[name]["accessed"] <= min(1.5, 1.02 * by_name[f"optax {name}"]["accessed"])
    count = 3 * 8 * 8
    assert by_name["lion"]["moved"] == 3 * 4 * count + 2 * 4 * count
    assert imread(tmp_path / "cost.png").shape[1] > 300


def test_compile_time(tmp_path, capsys):
    file = tmp_path / "times.json"
    importlib.import_module("compile_time").main(
        ["adam", "sam", "--leaves", "2", "--json", str(file)]
    )
    adam, sam = json.loads(file.read_text())["2 x 8x8"]
    assert (adam["evaluations"], sam["evaluations"]) == (0, 2)
    assert sam["fair"] > adam["compile"] / 10 > 0
    assert "| `sam` |" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["compile_time", "step_cost", "peak_memory", "kernel_bytes"])
def test_an_unknown_method_is_refused_in_a_line(script, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(script).main(["adamm"])
    assert "did you mean adam" in capsys.readouterr().err


def test_growth_with_leaves_and_with_params(tmp_path):
    script = importlib.import_module("step_cost")
    files = ["--json", str(tmp_path / "growth.json"), "--plot", str(tmp_path / "growth.png")]
    script.main(["sgd", "--growth", "--most", "2", *files])
    found = json.loads((tmp_path / "growth.json").read_text())["trees"]
    assert list(found) == ["4 x 64x64", "16 x 64x64", "4 x 256x256"]
    (small, *_), (many, *_), (large, *_) = found.values()
    assert many["moved"] == 4 * small["moved"]
    assert large["moved"] == 16 * small["moved"]
    assert imread(tmp_path / "growth.png").shape[1] > 300


def test_matrix_peers_in_small(tmp_path):
    """In a process of its own, as it keeps to one processor; Optax's stands beside ours."""
    files = ["--json", str(tmp_path / "peers.json"), "--plot", str(tmp_path / "peers.png")]
    given = ["--families", "muon", "--trees", "small", "--rounds", "1", *files]
    given += ["--env", f"torch={sys.executable}"]
    command = [sys.executable, str(FOLDER / "matrix_peers.py"), *given]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads((tmp_path / "peers.json").read_text())
    rows = {(row["name"], row["package"]): row for row in found["small"]["muon"]}
    ours, theirs = rows["muon", "gradchain"], rows["contrib.muon", "optax"]
    assert 4 <= ours["state"] <= theirs["state"] + 0.1
    assert all(len(row["periods"][0]) == 10 and row["mean"] > 0 for row in rows.values())
    # a peer that is not installed here is named, whether it would run in this process or another
    for name in ("torch", "pytorch_optimizer"):
        is_there = importlib.util.find_spec(name) is not None
        assert is_there != any(f"of {name}:" in line for line in found["missing"])
    assert f"{theirs['mean'] / ours['mean']:.2f}" in printed
    assert imread(tmp_path / "peers.png").shape[1] > 300


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


def test_bytes_of_kernels(capsys):
    """Against counts by hand: a kernel for each result, and the branch that is taken."""
    script = importlib.import_module("kernel_bytes")
    adamw, lamb = (script.figures(get_method(name).build()) for name in ("adamw", "lamb"))
    assert (adamw.least, adamw.looked_at) == pytest.approx((28, 0), abs=0.01)
    assert adamw.moved == pytest.approx(12 + 12 + 16, abs=0.01)  # mu, nu, and params of all
    assert adamw.quotient == pytest.approx(40 / 28, abs=0.01)
    assert lamb.looked_at == pytest.approx(8, abs=0.01)  # params, and the direction, written once
    assert lamb.moved > adamw.moved
    script.main(["sgd"])
    assert "| `sgd` | 1.00 | 12.00 | 12.00 | 0.00 | 0.00 |" in capsys.readouterr().out

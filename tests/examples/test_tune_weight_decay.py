"""Weight decays are tuned by every bilevel method, and the plot shows both losses."""

import importlib
from pathlib import Path

from gradchain.catalogue import METHODS
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_bilevel_method_moves_the_decays_and_the_network_learns(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("COLUMNS", "200")
    example = importlib.import_module("tune_weight_decay")
    path = tmp_path / "decay.png"
    assert example.main(["--steps", "30", "--plot", str(path)]) == 0
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    rows = {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}
    methods = {name for name, entry in METHODS.items() if entry.family == "bilevel"}
    assert set(rows) == (methods - {"ift_neumann"}) | {"no tuning", "implicit_hypergradient"}
    for name, (decays, training, validation, *_) in rows.items():
        moved = decays != "1.0e-03, 1.0e-03"
        assert moved == (name != "no tuning"), name
        assert float(training) < 2.0, name  # log 10 at the start
        assert float(validation) < 2.1, name
    assert imread(path).shape[1] > 600

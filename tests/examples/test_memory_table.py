"""The table of state bytes: AdamW's two moments over a mesh, and a method that refuses."""

import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def memory_table(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import memory_table

    yield memory_table
    sys.modules.pop("memory_table")


def test_adamw_takes_eight_bytes_however_it_is_spread(memory_table, capsys, tmp_path):
    picture = tmp_path / "bytes.png"
    arguments = ["adamw", "econtrol", "--mesh", "4", "2", "--plot", str(picture)]
    assert memory_table.main(arguments) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "adamw " in line and " in " not in line)
    assert float(row.split("│")[2]) == pytest.approx(8, rel=1e-3)
    assert "no state for a model of this size: econtrol" in printed
    assert imread(picture).std() > 0


def test_a_mesh_of_no_devices_is_refused(memory_table, capsys):
    with pytest.raises(SystemExit):
        memory_table.main(["adamw", "--mesh", "0"])
    assert "a mesh has one axis or two" in capsys.readouterr().err

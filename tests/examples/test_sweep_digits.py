"""The sweep example finds a rate that learns, draws the valley and refuses in one line."""

from pathlib import Path

import pytest


@pytest.fixture
def sweep_digits(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import sweep_digits

    return sweep_digits


def test_finds_a_rate_that_learns(sweep_digits, tmp_path, capsys):
    path = tmp_path / "plots" / "valley.png"
    form = ["--points", "3", "--decays", "0.1", "--seeds", "2", "--steps", "120"]
    assert sweep_digits.main([*form, "--plot", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "best of 6 runs: learning_rate 0.01" in printed
    assert float(printed.split("%")[0].split()[-1]) < 12
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "adm"], "'adm'"),
        (["--optimizer", "sophia_g"], "the method needs"),
        (["--rates", "1", "0.1"], "the lower one first"),
    ],
)
def test_refuses(arguments, message, sweep_digits, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep_digits.main(arguments)
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in errors
    assert errors.count("\n") == 1

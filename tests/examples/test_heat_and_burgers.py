"""Two steps in time of both equations: natural gradients follow them, and Adam falls behind."""

import importlib
from pathlib import Path

import numpy as np
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("COLUMNS", "200")
    return importlib.import_module("heat_and_burgers")


def test_natural_gradients_follow_both_equations(monkeypatch, capsys, tmp_path):
    path = tmp_path / "errors.png"
    arguments = ["--time", "0.04", "--adam-steps", "50", "--integrator", "heun", "--width", "8"]
    assert example(monkeypatch).main([*arguments, "--plot", str(path)]) == 0
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert len(lines) == 4
    found = {(line[0].strip(), line[1].strip()): float(line[3]) for line in lines}
    for equation in ("heat", "Burgers"):
        assert found[equation, "teng"] < 2e-4
        assert found[equation, "teng"] < 0.1 * found[equation, "adam"]
    assert imread(path).shape[1] > 600


def test_the_exact_solutions_start_where_they_should_and_fulfil_the_equations(monkeypatch):
    heat = example(monkeypatch)
    count, t, h = 64, 0.3, 1e-4
    k = np.fft.fftfreq(count, 1 / count)
    for equation in heat.EQUATIONS.values():
        start = heat.start(heat.points(count))
        np.testing.assert_allclose(equation.exact(0.0, count), start, atol=1e-10)
        u = equation.exact(t, count)
        slope = (equation.exact(t + h, count) - equation.exact(t - h, count)) / (2 * h)
        waves = np.fft.fft(u)
        first, second = (np.fft.ifft((1j * k) ** n * waves).real for n in (1, 2))
        carried = u * first if equation.operator is heat.burgers else 0.0
        np.testing.assert_allclose(slope, heat.VISCOSITY * second - carried, atol=1e-6)

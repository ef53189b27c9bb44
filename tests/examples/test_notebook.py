"""The notebook runs from top to bottom, and is committed with what it shows."""

from pathlib import Path

import nbformat
import pytest

PATH = Path(__file__).parents[2] / "examples" / "compose.ipynb"


def outputs(notebook, kind):
    found = (o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", []))
    return [data[kind] for data in found if kind in data]


@pytest.fixture(scope="module")
def executed():
    from nbclient import NotebookClient

    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


@pytest.mark.filterwarnings("ignore")
def test_it_runs_and_every_contender_learns(executed):
    text = "".join(
        output["text"]
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    accuracies = [float(line.split()[-1]) for line in text.splitlines() if "accuracy" in line]
    assert len(accuracies) == 4
    assert min(accuracies) > 0.85


def test_it_shows_diagrams_a_table_and_a_plot(executed):
    committed = nbformat.read(PATH, as_version=4)
    for notebook in (committed, executed):
        assert len(outputs(notebook, "image/svg+xml")) == 2
        assert len(outputs(notebook, "text/html")) == 1
        assert len(outputs(notebook, "image/png")) == 1
    assert outputs(committed, "image/svg+xml") == outputs(executed, "image/svg+xml")
    assert outputs(committed, "text/html") == outputs(executed, "text/html")


def test_it_is_small_and_executed_in_order():
    committed = nbformat.read(PATH, as_version=4)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert PATH.stat().st_size < 200_000

"""The notebook that looks at a training run shows what its text says, and is committed so."""

import re
from pathlib import Path

import nbformat
import pytest

PATH = Path(__file__).parents[2] / "examples" / "measurements.ipynb"


def printed(notebook):
    return "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )


def figures(text):
    """The last number of every line by what stands before it."""
    lines = (re.fullmatch(r"(.*?)\s+([-\d.]+)", line.strip()) for line in text.splitlines())
    return {match[1]: float(match[2]) for match in lines if match}


@pytest.mark.filterwarnings("ignore")
def test_it_runs_and_finds_what_it_says():
    from nbclient import NotebookClient

    committed, notebook = (nbformat.read(PATH, as_version=4) for _ in range(2))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert printed(notebook).count("at last") == 4
    for text in (printed(committed), printed(notebook)):
        found = figures(text)
        assert found["step 399: share of the gradient"] > 0.5
        assert found["overlap from step 100 to 399:"] > 20 * found["overlap of random spaces:"]
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "data" in o]
    assert sum("image/png" in picture["data"] for picture in pictures) == 2
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert PATH.stat().st_size < 200_000

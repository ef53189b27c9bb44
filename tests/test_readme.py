"""The README says what is so: its tables come from the catalogue, its tour runs."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_and_page_are_those_of_the_catalogue():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.with_tables(README) == README, "run: python docs/make_tables.py"
    page = (ROOT / "docs" / "methods.md").read_text()
    assert tables.methods_page() == page, "run: python docs/make_tables.py"


def test_the_tour_runs(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    exec(compile(code, "README.md", "exec"), {})
    assert "('params', 'value_fn')" in capsys.readouterr().out

"""The README and the generated pages say what is so, and the README's tour runs."""

import functools
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from gradchain.catalogue import METHODS, SCHEDULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FORMULA = re.compile(r"\.\. math::|\$\$|^ {4,}\S.*( = |<-)|\$[^$]+\$", re.MULTILINE)
"""How docstrings write a rule."""


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_those_of_the_catalogue(tables):
    pages = tables.pages()
    assert set(ROOT.glob("docs/families/*.md")) <= set(pages)
    stale = [str(path) for path, page in pages.items() if path.read_text() != page]
    assert not stale, "run: python docs/make_tables.py"


@functools.cache
def sections(page):
    """Heading -> what is under it."""
    parts = re.split(r"^## (\w+)$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_with_its_rule(tables, name):
    """In the section itself, or in that of another method to which its docstring refers."""
    family = METHODS[name].family
    section = sections(f"families/{family}.md")[name]
    assert f"`{name}`\n" in section
    page = (ROOT / f"docs/families/{family}.md").read_text()
    rules = [section]
    for mentioned in set(re.findall(r"`(\w+)`", section)) - {name}:
        if mentioned in METHODS:
            rules.append(sections(f"families/{METHODS[mentioned].family}.md")[mentioned])
        elif mentioned in tables.public():
            rule = inspect.getdoc(tables.public()[mentioned])
            rules += [rule] if rule in page else []
    assert any(FORMULA.search(rule) for rule in rules)


def test_every_schedule_has_a_section():
    assert set(sections("schedules.md")) == set(SCHEDULES)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tour_runs(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    exec(compile(code, "README.md", "exec"), {})
    assert "('params', 'value_fn')" in capsys.readouterr().out

"""Writes the README's tables and the page of methods from the catalogue.

    python docs/make_tables.py

A test compares both with what this would write.
"""

import inspect
import re
import sys
from functools import cache
from pathlib import Path

import gradchain
import jax
import jax.numpy as jnp
from gradchain.catalogue import METHODS, SCHEDULES, Method, Schedule

README = Path(__file__).parent.parent / "README.md"
PAGE = Path(__file__).parent / "methods.md"
LAYERS = {
    name: {
        "kernel": jax.ShapeDtypeStruct((512, 512), jnp.float32),
        "bias": jax.ShapeDtypeStruct((512,), jnp.float32),
    }
    for name in ("dense_0", "dense_1")
}


def paper(entry: Method | Schedule) -> str:
    """The citation, linked where the paper is on arXiv."""
    return f"[{entry.paper}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv else entry.paper


@cache
def needs_and_size(method: Method) -> tuple[str, str]:
    """The extra inputs, and the state's bytes per parameter, of the method's sample settings."""
    opt = method.build()
    needs = ", ".join(f"`{name}`" for name in gradchain.needs(opt)) or "-"
    size = f"{gradchain.describe(opt, LAYERS).bytes_per_parameter:.2f}".rstrip("0").rstrip(".")
    return needs, size


def method_row(method: Method) -> str:
    """One line of the table."""
    needs, size = needs_and_size(method)
    return (
        f"| [`{method.name}`](docs/methods.md#{method.name}) | {paper(method)} | {needs} | {size} |"
    )


def section(method: Method) -> str:
    """A method on the page: paper, needs, state, and the rule as its docstrings give it."""
    needs, size = needs_and_size(method)
    module = sys.modules[method.factory.__module__]
    direction = getattr(module, f"scale_by_{method.name}", None)
    texts = [
        f"`{function.__name__}`\n\n```text\n{inspect.getdoc(function)}\n```"
        for function in (direction, method.factory)
        if function is not None
    ]
    facts = f"{paper(method)}. Needs: {needs}. State: {size} bytes per parameter."
    return "\n\n".join([f"## {method.name}", facts, *texts])


def methods_page() -> str:
    """All methods, by name."""
    head = (
        "# Methods\n\nGenerated from the catalogue by `python docs/make_tables.py`; the rule of a "
        "method stands in the docstring of its direction. *State* is that of the settings of the "
        "tests, on two dense layers of 512 float32 units."
    )
    return "\n\n".join([head, *(section(entry) for _, entry in sorted(METHODS.items()))]) + "\n"


def methods_table() -> str:
    """All methods, by family."""
    head = "| method | paper | needs | bytes |\n|---|---|---|---|"
    ordered = sorted(METHODS.values(), key=lambda method: (method.family, method.name))
    return "\n".join([head, *map(method_row, ordered)])


def schedules_table() -> str:
    """All schedules."""
    head = "| schedule | paper |\n|---|---|"
    rows = [f"| `{entry.name}` | {paper(entry)} |" for _, entry in sorted(SCHEDULES.items())]
    return "\n".join([head, *rows])


def with_tables(text: str) -> str:
    """The README with its tables written anew."""
    for name, table in (("methods", methods_table()), ("schedules", schedules_table())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(
            pattern, lambda found, t=table: f"{found[1]}{t}\n{found[2]}", text, flags=re.S
        )
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
    PAGE.write_text(methods_page())

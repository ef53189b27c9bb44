"""Writes the README's tables of methods and schedules from the catalogue.

    python docs/make_tables.py

A test compares the README with what this would write.
"""

import re
from pathlib import Path

import gradchain
import jax
import jax.numpy as jnp
from gradchain.catalogue import METHODS, SCHEDULES, Method, Schedule

README = Path(__file__).parent.parent / "README.md"
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


def method_row(method: Method) -> str:
    """One line of the table."""
    opt = method.build()
    needs = ", ".join(f"`{name}`" for name in gradchain.needs(opt)) or "-"
    size = f"{gradchain.describe(opt, LAYERS).bytes_per_parameter:.2f}".rstrip("0").rstrip(".")
    source = f"optimizers/{method.family}"
    return f"| [`{method.name}`]({source}) | {paper(method)} | {needs} | {size} |"


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

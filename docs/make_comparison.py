"""Writes `docs/comparison.md` from the results of `examples/train_text.py`.

    python docs/make_comparison.py runs/*/results.json

A method takes its row from the last of the files in which it occurs.
"""

import json
import sys
from pathlib import Path
from typing import Any

from gradchain.catalogue import METHODS

PAGE = Path(__file__).with_name("comparison.md")

HEAD = """# Comparison on the text example

Methods by their names in `examples/train_text.py`, at the rate of the catalogue (`--list`) unless
the row's command names another, under the schedule in its row. Nothing was tuned: the rates are
ones at which a method trains a small model, so the table says that a method works here and what it
costs, not which is best. All start from the same weights and see the same batches; one seed.

- *loss*: validation loss in nats per character at the end; *below* is how far under the unigram
  entropy ({entropy:.3f}), what a model that ignores the context reaches at best.
- *time*: per step, against SGD in the first steps of the same run, on two CPU cores that other work
  shared: below a factor of two it says little.
- *bytes*: of state per float32 parameter.

Written by `python docs/make_comparison.py` with {versions}.
"""


def main(paths: list[str]) -> None:
    runs = [json.loads(Path(path).read_text()) for path in paths]
    groups: dict[str, list[str]] = {}
    taken: set[str] = set()
    for run in reversed(runs):
        new = {label: row for label, row in run["optimizers"].items() if label not in taken}
        taken |= new.keys()
        groups.setdefault(size_of(run), []).extend(
            line(label, row, run) for label, row in new.items()
        )
    versions = ", ".join(f"{name} {v}" for name, v in runs[0]["versions"].items() if v)
    entropy = runs[0]["text"]["unigram_entropy"]
    parts = [HEAD.format(entropy=entropy, versions=versions)]
    for size in sorted(groups, reverse=True):
        parts.append(f"\n## {size}\n\n| method | rate | schedule | loss | below | time | bytes |")
        parts.append("|---|---|---|---|---|---|---|")
        parts.extend(sorted(groups[size], key=loss_of))
    parts.append("\n## Commands\n\n```bash")
    parts.extend(command(run) for run in runs)
    parts.append("```")
    missing = sorted(set(METHODS) - {label.partition(":")[0] for label in taken})
    if missing:
        parts.append(f"\nWithout a row so far: {', '.join(f'`{name}`' for name in missing)}.")
    PAGE.write_text("\n".join(parts) + "\n")


def size_of(run: dict[str, Any]) -> str:
    return f"{run['steps']} steps, {run['parameters']:,} parameters"


def line(label: str, row: dict[str, Any], run: dict[str, Any]) -> str:
    loss = row["validation_loss"]
    rate = row["learning_rate"]
    below = "-" if loss is None else f"{1 - loss / run['text']['unigram_entropy']:.0%}"
    cells = [
        f"`{label.partition(':')[0]}`",
        "own" if rate is None else f"{rate:g}",
        row["schedule"] or "-",
        "diverged" if loss is None else f"{loss:.3f}",
        below,
        f"{row['time_relative_to_sgd']:.1f}",
        f"{row['state_bytes_per_parameter']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def loss_of(line: str) -> float:
    loss = line.split("|")[4].strip()
    return float("inf") if loss == "diverged" else float(loss)


def command(run: dict[str, Any]) -> str:
    """The command line, without the settings that are the defaults of the model."""
    settings = run["settings"]
    words = ["python examples/train_text.py --optimizers", *settings["optimizers"]]
    default = {"steps": 600, "width": 64, "layers": 2, "heads": 4, "context": 64}
    words += [f"--{name} {settings[name]}" for name in default if settings[name] != default[name]]
    return " ".join(words)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Writes `docs/comparison.md` from the results of `examples/train_text.py`.

    python docs/make_comparison.py [runs/*/results.json]

What was measured is kept in `docs/comparison.json`. A method at one size of the model has its row
from the last file in which it occurs, and replaces the row that it had there.
"""

import json
import sys
from pathlib import Path
from typing import Any

from gradchain.catalogue import METHODS

PAGE = Path(__file__).with_name("comparison.md")
KEPT = Path(__file__).with_name("comparison.json")
RUN_FIELDS = ("settings", "steps", "parameters", "text", "versions")
ROW_FIELDS = (
    "learning_rate",
    "schedule",
    "validation_loss",
    "time_relative_to_sgd",
    "state_bytes_per_parameter",
)

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
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else []
    runs = latest([*kept, *(trimmed(json.loads(Path(path).read_text())) for path in paths)])
    KEPT.write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
    groups: dict[str, list[str]] = {}
    for run in runs:
        rows = (line(label, row, run) for label, row in run["optimizers"].items())
        groups.setdefault(size_of(run), []).extend(rows)
    versions = ", ".join(f"{name} {v}" for name, v in runs[-1]["versions"].items() if v)
    entropy = runs[-1]["text"]["unigram_entropy"]
    parts = [HEAD.format(entropy=entropy, versions=versions)]
    for size in sorted(groups, key=lambda size: -int(size.split()[0])):
        parts.append(f"\n## {size}\n\n| method | rate | schedule | loss | below | time | bytes |")
        parts.append("|---|---|---|---|---|---|---|")
        parts.extend(sorted(groups[size], key=loss_of))
    parts.append("\n## Commands\n\n```bash")
    parts.extend(command(run) for run in runs)
    parts.append("```")
    shown = {label.partition(":")[0] for run in runs for label in run["optimizers"]}
    missing = ", ".join(f"`{name}`" for name in sorted(set(METHODS) - shown))
    if missing:
        parts.append(f"\nWithout a row so far: {missing}.")
    PAGE.write_text("\n".join(parts) + "\n")


def trimmed(run: dict[str, Any]) -> dict[str, Any]:
    """What the page shows, and what repeats it."""
    rows = run["optimizers"].items()
    kept = {label: {name: row[name] for name in ROW_FIELDS} for label, row in rows}
    return {name: run[name] for name in RUN_FIELDS} | {"optimizers": kept}


def latest(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs without the rows that a later one has, and without those that have none left."""
    taken: set[tuple[str, str]] = set()
    for run in reversed(runs):
        mine = {(label, size_of(run)) for label in run["optimizers"]}
        for label, _ in mine & taken:
            del run["optimizers"][label]
        taken |= mine
    return [run for run in runs if run["optimizers"]]


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

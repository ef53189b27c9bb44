"""What a run leaves behind: the final table, the curves as a picture, the figures as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gradchain
import jax
import matplotlib
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from .contender import Contender
from .train import Run

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Methods that refresh something every few steps are timed over whole periods.
TIMING_BLOCK = 10
# Okabe and Ito's colours, distinct for colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
STYLES = ("-", "--", "-.")


def results(run: Run, samples: dict[str, str]) -> dict[str, Any]:
    """All figures of the run, ready for JSON; the first optimizer is the baseline."""
    history = run.history
    final = {label: curve[-1][1] for label, curve in history.validation.items()}
    baseline = run.contenders[0].label
    return {
        "settings": asdict(run.settings),
        "steps": run.step,
        "text": {
            "characters": len(run.text.characters),
            "train_length": len(run.text.train),
            "validation_length": len(run.text.validation),
            "unigram_entropy": run.text.unigram_entropy(),
        },
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
        "baseline": baseline,
        "sgd_seconds_per_step": _median_of_blocks(history.sgd_seconds),
        "optimizers": {
            contender.label: _figures(run, contender, final[baseline], samples)
            for contender in run.contenders
        },
        "versions": {name: _version(name) for name in ("gradchain", "jax", "optax", "flax")},
    }


def _figures(
    run: Run, contender: Contender, target: float, samples: dict[str, str]
) -> dict[str, Any]:
    label = contender.label
    history = run.history
    seconds, sgd_seconds = history.seconds[label], history.sgd_seconds
    curve = history.validation[label]
    described = gradchain.describe(contender.optimizer, jax.eval_shape(lambda: run.params))
    reached = [step for step, loss in curve if loss <= target]
    return {
        "learning_rate": contender.learning_rate,
        "schedule": contender.schedule,
        "validation_loss": _finite(curve[-1][1]),
        "steps_to_baseline": int(reached[0]) if reached else None,
        "seconds_per_step": _median_of_blocks(seconds),
        "time_relative_to_sgd": _relative_time(seconds, sgd_seconds),
        "state_bytes": int(described.state_bytes),
        "state_bytes_per_parameter": float(described.bytes_per_parameter),
        **({"decisions": run.searches[label].decisions} if contender.controlled else {}),
        "validation": [[int(step), _finite(loss)] for step, loss in curve],
        "train": [_finite(loss) for loss in history.train[label]],
        "sample": samples.get(label),
    }


def _version(package: str) -> str | None:
    """None where the package is on the path without having been installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _finite(number: float) -> float | None:
    """None where training diverged: JSON knows no NaN."""
    return number if math.isfinite(number) else None


def _blocks(seconds: Sequence[float]) -> np.ndarray:
    """Mean seconds per step of consecutive whole blocks; a shorter run is one block."""
    size = min(TIMING_BLOCK, len(seconds))
    count = len(seconds) // size if size else 0
    return np.reshape(seconds[: count * size], (count, size)).mean(axis=1) if count else np.ones(0)


def _median_of_blocks(seconds: Sequence[float]) -> float | None:
    blocks = _blocks(seconds)
    return float(np.median(blocks)) if blocks.size else None


def _relative_time(seconds: Sequence[float], sgd_seconds: Sequence[float]) -> float | None:
    """Median over the rounds in which SGD ran between the optimizers, on the same machine load."""
    together = min(len(seconds), len(sgd_seconds))
    ratios = _blocks(seconds[:together]) / _blocks(sgd_seconds[:together])
    return float(np.median(ratios)) if ratios.size else None


def table(figures: dict[str, Any]) -> Table:
    """The final comparison, for a terminal of 80 columns."""
    entropy = figures["text"]["unigram_entropy"]
    out = Table(
        Column("optimizer", overflow="fold", min_width=19),
        title=f"after {figures['steps']} steps; unigram entropy {entropy:.3f} nats per character",
        caption=f"baseline: {figures['baseline']}; loss: validation, nats per character",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in (
        "rate",
        "schedule",
        "loss",
        "below\nunigram",
        "steps to\nbaseline",
        "time\nvs SGD",
        "state\nB/param",
    ):
        out.add_column(heading, justify="right")
    for label, row in figures["optimizers"].items():
        loss = row["validation_loss"]
        out.add_row(
            label,
            _shown(row["learning_rate"], "g", "own"),
            row["schedule"] or "-",
            _shown(loss, ".3f", "diverged"),
            "-" if loss is None else f"{1 - loss / entropy:.0%}",
            _shown(row["steps_to_baseline"], "d", "-"),
            _shown(row["time_relative_to_sgd"], ".2f", "-"),
            f"{row['state_bytes_per_parameter']:.2f}",
        )
    return out


def _shown(number: float | None, form: str, otherwise: str) -> str:
    return otherwise if number is None else format(number, form)


def plot(figures: dict[str, Any], path: Path) -> None:
    """Validation loss over steps and over training time, as a PNG."""
    figure, (by_step, by_time) = plt.subplots(
        1, 2, figsize=(13, 4.6), sharey=True, layout="constrained"
    )
    entropy = figures["text"]["unigram_entropy"]
    rows = figures["optimizers"]
    for index, (label, row) in enumerate(rows.items()):
        colour = COLOURS[index % len(COLOURS)]
        style = STYLES[index // len(COLOURS) % len(STYLES)]
        steps = np.array([step for step, _ in row["validation"]])
        losses = np.array([np.nan if loss is None else loss for _, loss in row["validation"]])
        final = _shown(row["validation_loss"], ".3f", "diverged")
        smooth = _smoothed([np.nan if loss is None else loss for loss in row["train"]])
        by_step.plot(np.arange(1, len(smooth) + 1), smooth, color=colour, linewidth=0.8, alpha=0.3)
        by_step.plot(
            steps, losses, style, color=colour, marker="o", markersize=3, label=f"{label}  {final}"
        )
        time = steps * (row["seconds_per_step"] or 0.0)
        by_time.plot(time, losses, style, color=colour, marker="o", markersize=3)
    target = rows[figures["baseline"]]["validation_loss"]
    for axes in (by_step, by_time):
        axes.axhline(entropy, color="0.4", linestyle="--", linewidth=1, label="unigram entropy")
        if target is not None:
            name = f"final loss of {figures['baseline']}"
            axes.axhline(target, color="0.4", linestyle=":", linewidth=1, label=name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
    by_step.set(xlabel="step", ylabel="loss (nats per character)", title="by steps")
    by_time.set(xlabel="time in training steps (seconds)", title="by time")
    # The start, near log(vocabulary), would squeeze everything that can be compared.
    reached = [[x for _, x in row["validation"] if x is not None] for row in rows.values()]
    best = [min(losses) for losses in reached if losses]
    lowest = min([*best, entropy])
    highest = max([entropy + 0.45 * (entropy - lowest), *best])
    by_step.set_ylim(lowest - 0.08 * (entropy - lowest) - 0.02, highest + 0.1)
    # Beside the axes: with many optimizers there is no room among the curves.
    figure.legend(
        *by_step.get_legend_handles_labels(),
        loc="outside right upper",
        frameon=False,
        fontsize="small",
        title="validation loss",
        alignment="left",
    )
    by_time.annotate(
        "unigram entropy",
        (1, entropy),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color="0.4",
        fontsize="small",
    )
    figure.suptitle(
        f"Character-level Transformer, {figures['parameters']:,} parameters: "
        "validation loss (strong), training loss (faint)",
        x=0.01,
        ha="left",
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _smoothed(losses: Sequence[float], window: int = 20) -> np.ndarray:
    """Running mean over the last `window` values."""
    sums = np.cumsum(np.concatenate([[0.0], np.nan_to_num(losses)]))
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - window)
    return np.where(np.isnan(losses), np.nan, (sums[ends] - sums[starts]) / (ends - starts))


def write(figures: dict[str, Any], folder: Path) -> None:
    """Leaves `results.json` and `curves.png` in the folder."""
    (folder / "results.json").write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    plot(figures, folder / "curves.png")

"""Matrix methods beside what a user would take instead, on the same tree, in one run.

    python benchmarks/matrix_peers.py
    python benchmarks/matrix_peers.py --families shampoo soap --trees "24 x 256x256"
    python benchmarks/matrix_peers.py --json peers.json --plot peers.png
    python benchmarks/matrix_peers.py --env kfac_jax=other/bin/python psgd_jax=other/bin/python

Peers are optional: optax.contrib, Google's Shampoo (`precondition`), `kfac-jax`, `psgd-jax` in
JAX; torch's own, Meta's (`distributed_shampoo`) and `pytorch_optimizer`'s in torch. One that does
not fit into this environment runs in a process of another one (`--env`); one that is missing, or
does not run, is named with the reason.

Everything runs in one run on one processor, a period of steps of each in turn, so that a noisy
machine is noisy for all; times are of the processor. Methods with a period have their roots,
inverses or bases anew at one step in ten: *step* is the median of a period's steps, *refresh* the
median of the dearest of each, *mean* what a step costs on average.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # before JAX makes its threads, one for each processor
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import gradchain
import jax
import matrix_contenders
import numpy as np
from matrix_contenders import FAMILIES, TREES, WIDTHS, Running, Shapes, start, version_of


@dataclass
class Row:
    """What was measured of a contender: processor seconds, and bytes per param."""

    name: str
    package: str
    version: str
    compile: float | None
    state: float
    temporary: float | None
    step: float = 0.0
    refresh: float | None = None
    mean: float = 0.0
    periods: list[list[float]] = field(default_factory=list)

    def summarise(self, periodic: bool) -> None:
        """From the times of all steps."""
        self.step = statistics.median(t for period in self.periods for t in period)
        self.mean = statistics.median(statistics.mean(period) for period in self.periods)
        if periodic:
            self.refresh = statistics.median(max(period) for period in self.periods)
        else:
            self.step = self.mean


def progress(text: str) -> None:
    """What is going on, on the terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


class Elsewhere(Running):
    """A contender in a process of another environment."""

    def __init__(self, python: str, family: str, number: int, tree: str) -> None:
        script, options = Path(matrix_contenders.__file__), json.dumps(matrix_contenders.OPTIONS)
        command = [python, str(script), family, str(number), tree, options]
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=kept, **pipes)
        found, self.version = self._answer()
        self.reason = found if isinstance(found, str) else None
        super().__init__(lambda: None, *(found if self.reason is None else (None, 0)))

    def _answer(self) -> Any:
        for line in self.process.stdout or ():
            if line.startswith("["):  # what else is printed is a package's talk
                return json.loads(line)
        return "it ended", "?"

    def period(self) -> list[float]:
        print(file=self.process.stdin, flush=True)
        return list(self._answer())

    def close(self) -> None:
        """Lets the process end."""
        self.process.communicate()


def started(family: str, number: int, tree: str, python: str | None) -> tuple[Running | str, str]:
    """A contender and its version, or the reason why it cannot run."""
    if python is None:
        return start(family, number, tree), version_of(FAMILIES[family][number].package)
    other = Elsewhere(python, family, number, tree)
    if other.reason is None:
        return other, other.version
    other.close()
    return other.reason, other.version


def measured(
    family: str, tree: str, rounds: int, environments: dict[str, str]
) -> tuple[list[Row], list[str]]:
    """The rows of one family, ours first, and why others are missing."""
    count = sum(int(np.prod(shape)) for shape in shapes_of(family, tree).values())
    found: list[tuple[bool, Row, Running]] = []
    missing = []
    for number, contender in enumerate(FAMILIES[family]):
        package = contender.package.partition(".")[0]
        progress(f"{family}: {contender.name} of {package}")
        running, version = started(family, number, tree, environments.get(package))
        if isinstance(running, str):
            missing.append(f"{contender.name} of {package}: {running}")
            continue
        temporary = None if running.temporary is None else running.temporary / count
        figures = (running.compile, running.state / count, temporary)
        found.append((contender.periodic, Row(contender.name, package, version, *figures), running))
    for turn in range(rounds + 1):
        progress(f"{family}: round {turn} of {rounds}")
        for _, row, running in found:
            times = running.period()
            if turn:  # the first period warms up
                row.periods.append(times)
    for periodic, row, running in found:
        row.summarise(periodic)
        if isinstance(running, Elsewhere):
            running.close()
    progress("")
    return [row for _, row, _ in found], missing


def shapes_of(family: str, tree: str) -> Shapes:
    """K-FAC has layers in place of the tree."""
    if family != "k_fac":
        return TREES[tree]()
    pairs = itertools.pairwise(WIDTHS)
    return {str(i): (one + 1, two) for i, (one, two) in enumerate(pairs)}


def table(rows: list[Row]) -> str:
    """In Markdown; ratios above one are where the peer takes more than ours."""
    head = (
        "| method | of | compile, s | step, ms | refresh, ms | mean, ms | : ours "
        "| state, bytes per param | temporary |\n|---|---|---|---|---|---|---|---|---|"
    )

    def shown(value: float | None, scale: float = 1, digits: int = 2) -> str:
        return "-" if value is None else f"{scale * value:.{digits}f}"

    lines = [head]
    for row in rows:
        cells = (
            f"`{row.name}`", row.package, shown(row.compile), shown(row.step, 1e3, 1),
            shown(row.refresh, 1e3, 1), shown(row.mean, 1e3, 1), shown(row.mean / rows[0].mean),
            shown(row.state, 1, 1), shown(row.temporary, 1, 1),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict[str, dict[str, list[Row]]], path: Path) -> None:
    """The mean step of each peer as a multiple of ours, one panel for each tree."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(found), 5), layout="constrained")
    for axes, (tree, families) in zip(
        np.atleast_1d(figure.subplots(1, len(found))), found.items(), strict=True
    ):
        bars = [
            (f"{row.name}, {row.package}", row.mean / rows[0].mean)
            for rows in families.values()
            for row in rows[1:]
        ]
        axes.barh([name for name, _ in bars], [ratio for _, ratio in bars])
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", title=tree, xlabel="mean step, as a multiple of ours")
        axes.tick_params(labelsize=7)
        axes.invert_yaxis()
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--trees", nargs="+", choices=TREES, default=list(TREES)[:3])
    parser.add_argument("--rounds", type=int, default=5, help="periods of ten steps")
    parser.add_argument(
        "--env", nargs="*", default=[], metavar="PACKAGE=PYTHON", help="which runs elsewhere"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    environments = dict(pair.split("=", 1) for pair in given.env)
    matrix_contenders.OPTIONS |= gradchain.compiler_options(update_only=True)
    print(f"one processor, jax {jax.__version__}, gradchain {gradchain.__version__}")
    found: dict[str, dict[str, list[Row]]] = {}
    absent: dict[str, None] = {}
    for tree in given.trees:
        found[tree] = {}
        for family in given.families:
            rows, missing = measured(family, tree, given.rounds, environments)
            found[tree][family] = rows
            absent |= dict.fromkeys(missing)
            print(f"\n{tree}, {family}\n\n{table(rows)}", flush=True)
    if absent:
        print("\nnot measured:", *absent, sep="\n  ")
    if given.json:
        plain = {
            tree: {family: [vars(row) for row in rows] for family, rows in families.items()}
            for tree, families in found.items()
        }
        given.json.write_text(json.dumps({"missing": list(absent), **plain}, indent=1))
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()

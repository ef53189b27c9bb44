"""What a run shows while it trains: a live table, or one line per evaluation in a log file."""

import math
import time

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .train import Run

REFRESH_SECONDS = 0.25
DECISIONS = 3
DECIDED = {"explore": "tries", "exploit": "chooses"}


class Display:
    """Progress of all optimizers; a context manager."""

    def __init__(self, run: Run, console: Console):
        self.run, self.console = run, console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("training", total=run.settings.steps, start=False)
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.shown_at = 0.0
        # those of before a resumption stand in the log already
        self.printed = {n: len(s.decisions) if run.step else 0 for n, s in run.searches.items()}

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def compiling(self, name: str) -> None:
        """Says what is being compiled: the one part of a run that cannot show progress."""
        self.progress.update(self.task, description=f"compiling {name}")
        self._show()

    def stepped(self) -> None:
        """Brings the live table up to date, a few times a second at most."""
        if not self.progress.tasks[0].started:
            self.progress.start_task(self.task)
        self.progress.update(self.task, description="training", completed=self.run.step)
        if time.monotonic() - self.shown_at >= REFRESH_SECONDS:
            self._show()

    def evaluated(self) -> None:
        """Shows new validation losses; a line of their own where there is no terminal."""
        self._show()
        if not self.console.is_terminal:
            self._print()
            losses = ", ".join(
                f"{label} {curve[-1][1]:.3f}"
                for label, curve in self.run.history.validation.items()
            )
            self.console.print(f"step {self.run.step}: validation loss {losses}", soft_wrap=True)

    def _print(self) -> None:
        for label, search in self.run.searches.items():
            for made in search.decisions[self.printed.get(label, 0) :]:
                self.console.print(
                    f"step {made['step']}: {label} {DECIDED[made['phase']]} "
                    f"the learning rate {made['learning_rate']:.2e}",
                    soft_wrap=True,
                )
            self.printed[label] = len(search.decisions)

    def _show(self) -> None:
        self.shown_at = time.monotonic()
        if self.console.is_terminal:
            tables = [self._table(), *([self.decisions()] if self.run.searches else [])]
            self.live.update(Group(self.progress, *tables), refresh=True)

    def decisions(self) -> Table:
        """The latest decisions of the controllers."""
        table = Table("optimizer", box=None, pad_edge=False)
        for heading in ("step", "decision", "learning rate"):
            table.add_column(heading, justify="right")
        for label, search in self.run.searches.items():
            for made in search.decisions[-DECISIONS:]:
                rate = f"{made['learning_rate']:.2e}"
                table.add_row(label, str(made["step"]), DECIDED[made["phase"]], rate)
        return table

    def _table(self) -> Table:
        table = Table("optimizer", box=None, pad_edge=False)
        for heading in ("learning rate", "training loss", "validation loss"):
            table.add_column(heading, justify="right")
        history = self.run.history
        for contender in self.run.contenders:
            recent = history.train[contender.label][-20:]
            rate = self.run.rate(contender)
            curve = history.validation[contender.label]
            table.add_row(
                contender.label,
                "own" if math.isnan(rate) else f"{rate:.2e}",
                f"{np.mean(recent):.3f}" if recent else "",
                f"{curve[-1][1]:.3f}" if curve else "",
            )
        return table

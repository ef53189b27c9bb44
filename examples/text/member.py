"""What one process of several does."""

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from rich.console import Console
from rich.table import Table

from .checkpoint import Checkpoints
from .data import load
from .launch import LOST
from .plan import Settings
from .workers import History, Run


def work(
    folder: Path, settings: Settings, processes: int, process_id: int, coordinator: str
) -> NoReturn:
    """Joins the others, trains, and ends the process."""
    code = LOST
    try:
        jax.distributed.initialize(coordinator, processes, process_id, heartbeat_timeout_seconds=20)
        # The first collective must begin on all of them within half a minute; later ones wait.
        ocp.multihost.get_barrier_sync_fn()(key="start", timeout_ms=300_000)
        multihost_utils.sync_global_devices("start")
        train(folder, settings)
        jax.distributed.shutdown()
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # An orderly exit would wait for the others, while they wait for what this one should send.
        os._exit(code)


def train(folder: Path, settings: Settings) -> None:
    """Trains from the last checkpoint on, in company of all the other processes."""
    first = jax.process_index() == 0
    console = Console(quiet=not first)
    run = Run(settings, load())
    with Checkpoints(folder / "checkpoints") as checkpoints:
        found = checkpoints.restore(run.states)
        if found is not None:
            run.step, states, history = found
            run.states.update(states)
            run.history = History(**history)
            console.print(f"resuming at step {run.step}")
        console.print(f"{run.workers} workers in {jax.process_count()} processes")
        while run.step < settings.steps:
            run.advance()
            last = run.step == settings.steps
            if last or run.step % settings.eval_every == 0:
                losses = run.evaluate()
                shown = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
                console.print(f"step {run.step}: validation loss {shown}")
                if first:
                    with (folder / "validation.jsonl").open("a") as log:
                        log.write(json.dumps({"step": run.step, **losses}) + "\n")
            if last or run.step % settings.checkpoint_every == 0:
                checkpoints.save(run.step, run.states, asdict(run.history))
    if first:
        report(run, folder, console)


def report(run: Run, folder: Path, console: Console) -> None:
    """Prints the table and writes `results.json`."""
    figures = run.results()
    table = Table("method", "training loss", "validation loss", "bytes sent per step and worker")
    for name, row in figures["methods"].items():
        sent = f"{row['sent_bytes_per_step']:,.0f}"
        table.add_row(name, f"{row['train'][-1]:.3f}", f"{row['validation'][-1][1]:.3f}", sent)
    console.print(table)
    (folder / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"{folder / 'results.json'}", soft_wrap=True)

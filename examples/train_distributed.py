"""Trains the small Transformer of `train_text.py` by several processes, with four methods.

    python examples/train_distributed.py
    python examples/train_distributed.py --processes 4 --methods adamw diloco --local-steps 50
    python examples/train_distributed.py --resume --out runs/distributed

This starts the processes on this machine, each a worker with a CPU device of its own. On a cluster
the same command is run once on every machine, with the address of the first:

    python examples/train_distributed.py --processes 8 --process-id 3 --coordinator 10.0.0.1:1234

Synchronous AdamW, DiLoCo, DeMo and PowerSGD start from the same weights and see the same batches;
the table shows what they reach, and how many bytes a worker sends for it in a step. Where a process
is killed the run ends; `--resume` goes on from the last checkpoint.
"""

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
from rich.console import Console
from rich.table import Table
from text.checkpoint import Checkpoints
from text.data import load
from text.workers import METHODS, History, Run, Settings

OUT = Path("runs/distributed")
USAGE_ERROR = 2
LOST = 1


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parser() -> Parser:
    defaults = Settings()
    out = Parser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit codes: 0 done, 1 a process was lost, 2 wrong arguments, 130 or 143 stopped by "
        "Ctrl-C or SIGTERM.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    out.add_argument("--processes", type=positive, default=2, metavar="N", help="how many")
    out.add_argument(
        "--process-id", type=int, default=None, metavar="I", help="be this one, from 0, only"
    )
    out.add_argument(
        "--coordinator", default=None, metavar="HOST:PORT", help="address of process 0"
    )
    out.add_argument("--methods", nargs="+", choices=METHODS, help="default: all of them")
    numbers = {
        "steps": "training steps",
        "local_steps": "of DiLoCo between two exchanges",
        "batch_size": "windows per step and worker",
        "context": "characters per window",
        "width": "of the residual stream",
        "layers": "of the Transformer",
        "heads": "of its attention",
        "eval_every": "steps between validations",
        "checkpoint_every": "steps between checkpoints",
    }
    for name, meaning in numbers.items():
        out.add_argument(
            "--" + name.replace("_", "-"),
            type=positive,
            metavar="N",
            help=f"{meaning} (default {getattr(defaults, name)})",
        )
    out.add_argument("--seed", type=int, metavar="N", help="of weights and batches")
    out.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR",
        help=f"folder of the run, on a disk that all processes see (default {OUT})",
    )  # fmt: skip
    out.add_argument("--resume", action="store_true", default=False, help="continue that run")
    out.add_argument("--prepared", action="store_true", default=False, help=argparse.SUPPRESS)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = vars(parser().parse_args(given))
    place = {name: options.pop(name) for name in ("processes", "process_id", "coordinator")}
    folder, resume, prepared = (options.pop(name) for name in ("out", "resume", "prepared"))
    try:
        if place["process_id"] is not None and place["coordinator"] is None:
            raise ValueError("--process-id needs --coordinator, the address of process 0")
        if not place["process_id"] and not prepared:
            prepare(folder, options, resume, place["processes"])
        if place["process_id"] is None:
            return launch([*given, "--prepared"], place["processes"], folder)
        settings = stored_settings(folder) if resume else settings_of(options)
    except ValueError as error:
        print(f"train_distributed: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    return work(folder, settings, place)


def settings_of(options: dict[str, Any]) -> Settings:
    settings = Settings(**{**options, "methods": tuple(options.get("methods", Settings.methods))})
    if settings.width % settings.heads:
        raise ValueError(f"--width {settings.width} is not a multiple of --heads {settings.heads}")
    return settings


def prepare(folder: Path, options: dict[str, Any], resume: bool, processes: int) -> None:
    """Refuses what cannot run, before any process is started."""
    if resume:
        stored = asdict(stored_settings(folder))
        for name, value in options.items():
            if value != stored[name]:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} {value} differs from the run: {stored[name]}")
        workers = json.loads((folder / "settings.json").read_text())["processes"]
        if workers != processes:
            raise ValueError(f"--processes {processes} differs from the run: {workers}")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; continue with --resume, or choose another --out")
    settings = settings_of(options)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {**asdict(settings), "processes": processes}
    (folder / "settings.json").write_text(json.dumps(stored, indent=1) + "\n")


def stored_settings(folder: Path) -> Settings:
    path = folder / "settings.json"
    if not path.is_file():
        raise ValueError(f"there is no run to resume in {folder}")
    stored = json.loads(path.read_text())
    known = {field.name: stored[field.name] for field in fields(Settings)}
    return Settings(**{**known, "methods": tuple(known["methods"])})


def launch(arguments: list[str], processes: int, folder: Path) -> int:
    """Starts the processes on this machine, and ends all of them where one is lost."""
    script = [sys.executable, os.path.abspath(__file__), *arguments]
    address = f"127.0.0.1:{_free_port()}"
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}  # a GPU has no room for several of them
    running = [
        subprocess.Popen(
            [*script, "--process-id", str(i), "--coordinator", address],
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        for i in range(processes)
    ]
    for i, process in enumerate(running):
        print(f"process {i} has pid {process.pid}", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        lost = _first_lost(running)
    except StoppedError as stop:
        print(f"stopped. {_how_to_go_on(folder, processes)}", flush=True)
        return 128 + stop.args[0]
    finally:
        _end(running)
    if lost is None:
        return 0
    code = running[lost].returncode
    if code == USAGE_ERROR:
        return code
    what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"
    print(
        f"process {lost} {what}; the run has ended, for the others cannot go on without it.\n"
        f"{_how_to_go_on(folder, processes)}",
        file=sys.stderr,
    )
    return LOST


class StoppedError(Exception):
    """The user wants no more."""


def _stop(number: int, _: object) -> NoReturn:
    raise StoppedError(number)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _first_lost(running: list[subprocess.Popen[bytes]]) -> int | None:
    """The first process that ends otherwise than done; None where all are done."""
    while True:
        codes = [process.poll() for process in running]
        # What is killed takes the others down soon after: it is the one to name.
        killed = [i for i, code in enumerate(codes) if code is not None and code < 0]
        failed = [i for i, code in enumerate(codes) if code]
        if failed:
            return (killed or failed)[0]
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.05)


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.kill()  # in a collective without its partners it hears nothing else
        process.wait()


def _how_to_go_on(folder: Path, processes: int) -> str:
    steps = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    begin = f"its checkpoint at step {max(steps)}" if steps else "its start"
    command = [sys.argv[0], "--processes", str(processes), "--resume", "--out", str(folder)]
    return f"Continue from {begin} with\n  python {shlex.join(command)}"


def work(folder: Path, settings: Settings, place: dict[str, Any]) -> int:
    """What one process does."""
    jax.distributed.initialize(
        place["coordinator"], place["processes"], place["process_id"], heartbeat_timeout_seconds=20
    )
    console = Console(quiet=jax.process_index() > 0)
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
                run.evaluate()
                losses = (f"{name} {run.history.validation[name][-1][1]:.3f}" for name in METHODS
                          if name in settings.methods)  # fmt: skip
                console.print(f"step {run.step}: validation loss " + ", ".join(losses))
            if last or run.step % settings.checkpoint_every == 0:
                checkpoints.save(run.step, run.states, asdict(run.history))
    report(run, folder, console)
    jax.distributed.shutdown()
    return 0


def report(run: Run, folder: Path, console: Console) -> None:
    """Prints the table; the first process writes `results.json`."""
    figures = run.results()
    table = Table("method", "training loss", "validation loss", "bytes sent per step and worker")
    for name, row in figures["methods"].items():
        sent = f"{row['sent_bytes_per_step']:,.0f}"
        table.add_row(name, f"{row['train'][-1]:.3f}", f"{row['validation'][-1][1]:.3f}", sent)
    console.print(table)
    if jax.process_index() == 0:
        (folder / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
        console.print(f"{folder / 'results.json'}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

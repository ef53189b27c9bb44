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
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from command_line import USAGE_ERROR, Parser, positive
from text.launch import launch
from text.plan import METHODS, Settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

OUT = Path("runs/distributed")


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
        if place["process_id"] not in (None, *range(place["processes"])):
            allowed = f"0 to {place['processes'] - 1}"
            raise ValueError(f"--process-id {place['process_id']} is none of {allowed}")
        if not place["process_id"] and not prepared:
            prepare(folder, options, resume, place["processes"])
        if place["process_id"] is None:
            script = [sys.executable, os.path.abspath(__file__), *given, "--prepared"]
            return launch(script, place["processes"], folder)
        settings = stored_settings(folder) if resume else settings_of(options)
    except ValueError as error:
        print(f"train_distributed: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    from text.member import work  # who starts the others needs no JAX

    work(folder, settings, **place)


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


if __name__ == "__main__":
    sys.exit(main())

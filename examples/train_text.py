"""Trains a small Transformer on the text that ships with Python, with any optimizers by name.

    python examples/train_text.py
    python examples/train_text.py --optimizers adamw:3e-3 lion:1e-3 --schedule cosine_decay
    python examples/train_text.py --optimizers adamw adamw-8bit
    python examples/train_text.py --optimizers adamw:4e-3:wsd adamw --controller auto_lrs
    python examples/train_text.py --list
    python examples/train_text.py --resume --out runs/text

All optimizers start from the same weights and see the same batches. The run leaves
`results.json`, `curves.png` and checkpoints in its folder. Ctrl-C saves and stops; `--resume`
continues as if nothing had happened, to the last bit.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

# LAPACK's own threads fight with XLA's: factorisations take twenty times as long, or hang.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
from command_line import USAGE_ERROR, Parser, positive
from gradchain.catalogue import METHODS, SCHEDULES
from rich.console import Console
from rich.table import Table
from text import report
from text.checkpoint import Checkpoints
from text.contender import CONSTANT, contenders
from text.control import CONTROLLERS
from text.data import Text, load
from text.display import Display
from text.model import generate
from text.train import Run, Settings, Stop, TooLargeError

OUT = Path("runs/text")


def parser() -> Parser:
    defaults = Settings()
    out = Parser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="--list shows the optimizers and schedules. Exit codes: 0 done, 2 wrong arguments, "
        "130 or 143 stopped by Ctrl-C or SIGTERM.",
        # What is not given stays absent: --resume has to tell given from default.
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    out.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME[-8bit][:RATE[:SCHEDULE]]",
        help=f"the first is the baseline (default {' '.join(defaults.optimizers)}); -8bit or "
        "-bfloat16 keeps the state of any of them in that form",
    )
    out.add_argument(
        "--schedule",
        metavar="NAME",
        help=f"of optimizers that name none (default {defaults.schedule})",
    )
    out.add_argument(
        "--controller",
        choices=CONTROLLERS,
        help="sets the rates of optimizers that name no schedule by their losses; may also stand "
        "in the place of SCHEDULE",
    )
    numbers = {
        "steps": "training steps of each optimizer",
        "batch_size": "windows per step",
        "context": "characters per window",
        "width": "of the residual stream",
        "layers": "of the Transformer",
        "heads": "of its attention",
        "eval_every": "steps between validations",
        "checkpoint_every": "steps between checkpoints",
        "sample_length": "characters generated at the end",
    }
    for name, meaning in numbers.items():
        out.add_argument(
            "--" + name.replace("_", "-"),
            type=positive,
            metavar="N",
            help=f"{meaning} (default {getattr(defaults, name)})",
        )
    out.add_argument("--seed", type=int, metavar="N", help="of weights, batches and the sample")
    out.add_argument("--out", type=Path, metavar="DIR", help=f"folder of the run (default {OUT})")
    out.add_argument("--resume", action="store_true", help="continue the run in --out")
    out.add_argument("--list", action="store_true", help="show optimizers and schedules, and stop")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = vars(parser().parse_args(arguments))
    console = Console()
    if given.pop("list", False):
        listing(console)
        return 0
    folder = given.pop("out", OUT)
    resume = given.pop("resume", False)
    try:
        settings = stored_settings(folder, given) if resume else new_settings(folder, given)
        text = load()
        if settings.context >= len(text.validation):
            raise ValueError(f"--context {settings.context} is longer than the validation text")
        chosen = contenders(
            list(settings.optimizers), settings.controller or settings.schedule, settings.steps
        )
        run = Run(settings, text, chosen)
        begin_folder(folder, settings)
    except ValueError as error:
        return refusal(error)
    try:
        return train(run, folder, console)
    except TooLargeError as error:
        if not resume:
            shutil.rmtree(folder)  # it was empty, and another run may want it
        return refusal(error)


def refusal(error: ValueError) -> int:
    """Says in one line why there is no run; returns the exit code."""
    print(f"train_text: error: {error}", file=sys.stderr)
    return USAGE_ERROR


def begin_folder(folder: Path, settings: Settings) -> None:
    """Makes the folder, or says in one line why it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staged = staged_settings(folder)
        staged.write_text(json.dumps(asdict(settings), indent=1) + "\n")
        staged.replace(settings_file(folder))  # whole or not at all, whenever the process is killed
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be written to: {error.strerror}") from error


def settings_file(folder: Path) -> Path:
    return folder / "settings.json"


def staged_settings(folder: Path) -> Path:
    return folder / ".settings.json"


def new_settings(folder: Path, given: dict[str, Any]) -> Settings:
    """The settings of a new run, whose folder must not hold another."""
    staged = staged_settings(folder)
    if folder.exists() and (
        not folder.is_dir() or any(path != staged for path in folder.iterdir())
    ):
        raise ValueError(
            f"{folder} is not empty; continue it with --resume or choose another --out"
        )
    return _settings(given)


def stored_settings(folder: Path, given: dict[str, Any]) -> Settings:
    """The settings of the run in the folder, which arguments may repeat but not change."""
    path = settings_file(folder)
    if not path.is_file():
        raise ValueError(f"there is no run to resume in {folder}")
    try:
        stored = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}; the run has to start again") from error
    for name, value in given.items():
        if value != stored[name]:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} {value} differs from the run in {folder}: {stored[name]}")
    return _settings(stored)


def _settings(values: dict[str, Any]) -> Settings:
    known = {field.name: values[field.name] for field in fields(Settings) if field.name in values}
    known["optimizers"] = tuple(known.get("optimizers", Settings.optimizers))
    settings = Settings(**known)
    if settings.seed < 0:
        raise ValueError(f"--seed {settings.seed} is negative")
    if settings.width % settings.heads:
        raise ValueError(f"--width {settings.width} is not a multiple of --heads {settings.heads}")
    return settings


def train(run: Run, folder: Path, console: Console) -> int:
    """Trains to the end or to a signal; returns the exit code."""
    settings, text = run.settings, run.text
    console.print(
        f"{sum(leaf.size for leaf in jax.tree.leaves(run.params)):,} parameters, "
        f"{len(text.train):,} characters of training text, {len(text.validation):,} of validation; "
        f"unigram entropy {text.unigram_entropy():.3f} nats per character",
        soft_wrap=not console.is_terminal,
    )
    with Stop() as stop, Checkpoints(folder / "checkpoints") as checkpoints:
        found = checkpoints.restore(run.saved())
        if found is not None:
            run.resume(*found)
            console.print(f"resuming at step {run.step}")
        with Display(run, console) as display:
            run.compile(display.compiling)
            if run.step == 0 and found is None:
                run.evaluate()
                display.evaluated()
            while run.step < settings.steps and stop.signal is None:
                run.advance()
                last = run.step == settings.steps
                if last or run.step % settings.eval_every == 0:
                    run.evaluate()
                    display.evaluated()
                if last or run.step % settings.checkpoint_every == 0:
                    checkpoints.save(run.step, run.saved(), run.recorded())
                display.stepped()
        if stop.signal is not None:
            checkpoints.save(run.step, run.saved(), run.recorded())
    if stop.signal is not None and run.step < settings.steps:
        script = shlex.join([sys.argv[0], "--resume", "--out", str(folder)])
        console.print(
            f"stopped at step {run.step} of {settings.steps}, saved; continue with\n"
            f"  python {script}",
            soft_wrap=True,
        )
        return 128 + stop.signal
    finish(run, folder, console)
    return 0


def finish(run: Run, folder: Path, console: Console) -> None:
    """Generates samples, prints the table and writes the report."""
    samples = {
        contender.label: sample(run, run.text, contender.label) for contender in run.contenders
    }
    figures = report.results(run, samples)
    report.write(figures, folder)
    rows = figures["optimizers"]
    trained = [label for label in rows if rows[label]["validation_loss"] is not None]
    if trained:
        best = min(trained, key=lambda label: rows[label]["validation_loss"])
        console.rule(f"text continued by {best}")
        console.print(samples[best], markup=False, highlight=False)
    console.print(report.table(figures))
    console.print(f"{folder / 'results.json'}, {folder / 'curves.png'}", soft_wrap=True)


def sample(run: Run, text: Text, label: str) -> str:
    """Text that the model of one optimizer writes after the start of the validation part."""
    settings = run.settings
    prompt = jnp.asarray(text.validation[: settings.context])
    key = jax.random.key(settings.seed)
    codes = continuation(run.graph, run.weights(label), prompt, settings.sample_length, key)
    return text.decode(codes)


continuation = jax.jit(generate, static_argnums=(0, 3))


def listing(console: Console) -> None:
    """Prints the catalogue as far as this example can use it."""
    optimizers = Table("optimizer", "learning rate", "paper", title="optimizers")
    for name in sorted(METHODS):
        method = METHODS[name]
        rate = "own" if method.learning_rate is None else f"{method.learning_rate:g}"
        optimizers.add_row(name, rate, method.paper)
    console.print(optimizers)
    schedules = Table("schedule", "paper", title="schedules")
    schedules.add_row(CONSTANT, "none: the rate stays as it is")
    for name in sorted(SCHEDULES):
        if SCHEDULES[name].build is not None:
            schedules.add_row(name, SCHEDULES[name].paper)
    console.print(schedules)


if __name__ == "__main__":
    sys.exit(main())

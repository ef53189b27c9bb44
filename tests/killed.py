"""A run of the text example that is killed again and again, and ends as if nothing had happened.

    python tests/killed.py 50       # kills it fifty times, with SIGKILL, at random moments
    python tests/killed.py 10 --optimizers soap:3e-3 --controller auto_lrs     # another run
    python tests/killed.py 10 --script tests/kept_runs.py teng k_fac          # another script

It is killed at any moment from its start on: while it compiles, trains, evaluates, or in the middle
of a save. Then it is resumed, until it is through, and compared with a run that was left alone;
the next run follows until there were as many kills.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "examples" / "train_text.py"
SMALL = "--width 16 --layers 1 --heads 2 --context 16 --batch-size 4 --sample-length 20"
OPTIMIZERS = ("--optimizers", "adam:1e-2", "sophia_h:1e-2")
"""A method that keeps a random key and refreshes every tenth step beside one without periods."""
CHECKPOINT_EVERY = 3


@dataclass(frozen=True)
class Run:
    """What is trained.

    Attributes:
      script: the text example, or another one that saves and resumes as it does.
      steps: number of steps.
      options: of the script: which optimizers, which controller.
    """

    script: Path
    steps: int
    options: Sequence[str]

    def command(self, folder: Path) -> list[str]:
        """Starts the run, or continues it."""
        out = [sys.executable, str(self.script), "--out", str(folder)]
        if has_begun(folder):
            return [*out, "--resume"]
        periods = f"--steps {self.steps} --checkpoint-every {CHECKPOINT_EVERY}"
        small = f"{SMALL} --eval-every 5" if self.script == SCRIPT else ""
        return [*out, *f"{small} {periods}".split(), *self.options]


def has_begun(folder: Path) -> bool:
    """Whether there is a run to resume."""
    return (folder / "settings.json").is_file()


def unfinished(folder: Path) -> set[str]:
    """Checkpoints that are being written: Orbax renames each once it is complete."""
    checkpoints = folder / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return {name for name in names if "tmp" in name}


def saved_steps(folder: Path) -> list[int]:
    """The steps of complete checkpoints."""
    checkpoints = folder / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


class Killer:
    """Starts a run and kills it, every other time in the middle of a save."""

    def __init__(self, run: Run, seed: int):
        self.run = run
        self.random = random.Random(seed)
        self.kills = 0
        self.starts_up = 20.0  # seconds before the first save

    def kill(self, folder: Path) -> dict[str, Any] | None:
        """Runs until its end comes; what was going on then, or None if it was through before."""
        before, left_over = saved_steps(folder), unfinished(folder)
        process = subprocess.Popen(
            self.run.command(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ,
        )
        started = time.monotonic()
        in_a_save = self.kills % 2 == 1
        # A little while after it shows, so that the files of the save are there in part.
        delay = self.random.expovariate(50.0)
        lifetime = self.random.uniform(0.0, 1.3) * self.starts_up
        while process.poll() is None:
            time.sleep(0.0005)
            now = time.monotonic() - started
            if not before and saved_steps(folder):
                self.starts_up = min(self.starts_up, now)
            if unfinished(folder) - left_over if in_a_save else now > lifetime:
                break
            if now > 300:
                raise AssertionError("it stands still")
        if in_a_save:
            time.sleep(delay)
        process.kill()
        moment = {
            "in a save": bool(unfinished(folder) - left_over),
            "before the first save": not saved_steps(folder),
            "step": max(saved_steps(folder), default=0),
        }
        errors = process.communicate()[1].decode()
        if process.returncode == 0:
            return None
        if process.returncode != -signal.SIGKILL:
            raise AssertionError(f"exit code {process.returncode}\n{errors}")
        if moment["step"] < max(before, default=0):
            raise AssertionError(f"the checkpoint of step {max(before)} is gone")
        self.kills += 1
        return moment


def finished(run: Run, folder: Path) -> dict[str, Any]:
    """What a run comes to that is left alone from here on."""
    done = subprocess.run(run.command(folder), capture_output=True, text=True, env=os.environ)
    if done.returncode != 0:
        raise AssertionError(f"it does not go on:\n{done.stderr}")
    rows = json.loads((folder / "results.json").read_text())["optimizers"]
    kept = ("train", "validation", "sample", "validation_loss")
    return {label: {name: row.get(name) for name in kept} for label, row in rows.items()}


def main(kills: int, run: Run, seed: int) -> None:
    """Kills, resumes, compares, and says what was seen."""
    killer = Killer(run, seed)
    seen: Counter[str] = Counter()
    runs = 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{scratch}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        straight = finished(run, Path(scratch) / "straight")
        while killer.kills < kills:
            folder = Path(scratch) / f"run {runs}"
            while killer.kills < kills and (moment := killer.kill(folder)) is not None:
                seen.update(what for what in ("in a save", "before the first save") if moment[what])
                print(f"{killer.kills}: {moment}", flush=True)
            assert finished(run, folder) == straight, "a run that was killed is another one"
            runs += 1
    print(f"killed {kills} times in {runs} runs, {dict(seen)}: all equal to the bit")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--script", type=Path, default=SCRIPT)
    given, options = parser.parse_known_args()
    main(given.kills, Run(given.script, 60, options or OPTIMIZERS), given.seed)

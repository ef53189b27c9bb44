"""Two processes train; one is killed, the run ends with a word, and goes on where it was."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from compilation import DEVICES

SCRIPT = Path(__file__).parents[2] / "examples" / "train_distributed.py"
TINY = ["--width", "16", "--layers", "1", "--heads", "2", "--context", "16", "--batch-size", "4"]
TINY += ["--steps", "100", "--eval-every", "5", "--checkpoint-every", "20", "--local-steps", "7"]


def start(*arguments):
    """The command, whose processes have one device each."""
    flags = os.environ.get("XLA_FLAGS", "").replace(DEVICES, "")
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def logged(folder):
    """Steps and validation losses, in the order in which they were computed."""
    path = folder / "validation.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def saved(folder):
    return [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]


def test_a_killed_process_ends_the_run_and_a_restart_goes_on(tmp_path):
    """What was computed after the last checkpoint is computed again, to the bit."""
    out = tmp_path / "run"
    run = start("--methods", "adamw", "diloco", *TINY, "--out", out)
    run.stdout.readline()
    pid = int(re.fullmatch(r"process 1 has pid (\d+)\n", run.stdout.readline()).group(1))
    while not (saved(out) and logged(out)[-1]["step"] > max(saved(out)) + 5):
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "process 1 was killed by SIGKILL; the run has ended" in error
    assert re.search(r"Continue from its checkpoint at step \d+ with\n  python .*--resume", error)
    before = {row["step"]: row for row in logged(out)}

    again = start("--resume", "--out", out)
    shown, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    resumed = int(re.search(r"resuming at step (\d+)\n2 workers in 2 processes", shown).group(1))
    after = {row["step"]: row for row in logged(out)[len(before) :]}
    twice = before.keys() & after.keys()
    assert twice
    assert min(after) == resumed + 5
    assert {step: after[step] for step in twice} == {step: before[step] for step in twice}

    figures = json.loads((out / "results.json").read_text())
    assert (figures["workers"], figures["processes"]) == (2, 2)
    for row in figures["methods"].values():
        assert len(row["train"]) == 100
        assert row["train"][-1] < row["train"][0] - 0.3
    sent = {name: row["sent_bytes_per_step"] for name, row in figures["methods"].items()}
    assert sent["adamw"] == 4 * figures["parameters"] == pytest.approx(7 * sent["diloco"])


def test_what_cannot_run_is_refused_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import train_distributed

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        (["--out", tmp_path / "full"], "is not empty"),
        (["--resume", "--out", tmp_path / "none"], "no run to resume"),
        (["--process-id", "0"], "needs --coordinator"),
        (["--process-id", "2", "--coordinator", "a:1"], "--process-id 2 is none of 0 to 1"),
        (["--width", "10", "--out", tmp_path / "new"], "not a multiple of --heads"),
    ):
        assert train_distributed.main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

"""Two processes train; one is killed, the run ends with a word, and goes on where it was."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "train_distributed.py"
TINY = ["--width", "16", "--layers", "1", "--heads", "2", "--context", "16", "--batch-size", "4"]
TINY += ["--steps", "300", "--eval-every", "100", "--checkpoint-every", "20", "--local-steps", "7"]


@pytest.fixture
def start(tmp_path):
    """Starts the command with a cache of compiled programs that all its processes share."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
    }

    def started(*arguments, **others):
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            env={**environment, **others}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return started


def test_a_killed_process_ends_the_run_and_a_restart_goes_on(start, tmp_path):
    out = tmp_path / "run"
    run = start("--methods", "adamw", "diloco", *TINY, "--out", out)
    pid = int(re.fullmatch(r"process 1 has pid (\d+)\n", _second_line(run)).group(1))
    while not list((out / "checkpoints").glob("[0-9]*")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "process 1 was killed by SIGKILL; the run has ended" in error
    assert re.search(r"Continue from its checkpoint at step \d+ with\n  python .*--resume", error)

    again = start("--resume", "--out", out)
    shown, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert re.search(r"resuming at step \d+\n2 workers in 2 processes", shown)

    # One process with two devices, which nobody stops, makes the same run.
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    straight = start(
        "--methods", "adamw", "diloco", *TINY, "--out", tmp_path / "other", "--processes", 1,
        **devices,
    )  # fmt: skip
    assert straight.communicate(timeout=120)[1] is not None
    assert straight.returncode == 0
    ours, other = (
        json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path / "other")
    )
    assert (ours["workers"], ours["processes"]) == (2, 2)
    assert (other["workers"], other["processes"]) == (2, 1)
    for name, row in ours["methods"].items():
        np.testing.assert_allclose(row["train"], other["methods"][name]["train"], rtol=1e-3)
        assert len(row["train"]) == 300
        assert row["train"][-1] < row["train"][0] - 0.5
        assert row["sent_bytes_per_step"] == other["methods"][name]["sent_bytes_per_step"]
    sent = {name: row["sent_bytes_per_step"] for name, row in ours["methods"].items()}
    assert sent["adamw"] == 4 * ours["parameters"] == pytest.approx(7 * sent["diloco"])


def _second_line(run):
    run.stdout.readline()
    return run.stdout.readline()


def test_what_cannot_run_is_refused_in_one_line(start, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        (["--out", tmp_path / "full"], "is not empty"),
        (["--resume", "--out", tmp_path / "none"], "no run to resume"),
        (["--process-id", "0"], "needs --coordinator"),
        (["--width", "10", "--out", tmp_path / "new"], "not a multiple of --heads"),
    ):
        run = start(*arguments)
        _, error = run.communicate(timeout=60)
        assert run.returncode == 2
        assert message in error
        assert error.count("\n") == 1

"""Several processes on this machine: starts them, and ends them all where one is lost."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from command_line import USAGE_ERROR

LOST = 1


def launch(script: list[str], processes: int, folder: Path) -> int:
    """Starts the processes on this machine, and ends all of them where one is lost.

    Args:
      script: what each of them runs, but for its number and the address of the first.
      processes: how many.
      folder: of the run.

    Returns:
      The exit code.
    """
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

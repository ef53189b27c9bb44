"""How the suite compiles: quickly, and without keeping every program it ever made.

Four fifths of the suite's time went into XLA's compiler. What it compiles runs a few steps on
small trees, so the optimised code never earns its compilation back: without LLVM's optimisations
and with the older, leaner emitters of fused loops a step compiles in a seventh of the time.
Arithmetic stays float64 where it was; the recorded runs hold at their tolerances either way. To
run a test on the code that users run, name one of the options yourself:

    XLA_FLAGS=--xla_backend_optimization_level=3 python -m pytest tests/test_references.py

What one process of a run has compiled the others read from a folder that goes with the run.
"""

import atexit
import ctypes
import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count=8"

QUICK = {
    "--xla_backend_optimization_level": "0",
    "--xla_cpu_use_fusion_emitters": "false",
    "--xla_cpu_parallel_codegen_split_count": "1",
}

AS_USERS_RUN = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
"""Options of one `jax.jit` that compiles as it would outside the suite."""

SHARE_OF_MEMORY = 0.2
LARGE = 2.2e9
"""Share of the machine, and bytes, that a process may hold before it forgets compiled programs."""
MUCH = 1.25
"""Times as much it may hold before it does so between two tests that share some of them."""

WORTH_KEEPING = 0.2
"""Seconds from which on what a test process has compiled is written to the folder."""


def set_environment() -> None:
    """For this process and those that it starts; must come before JAX is imported."""
    # LAPACK's own threads fight with XLA's: factorisations take twenty times as long, or hang.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = os.environ.get("XLA_FLAGS", "")
    if DEVICES in given:
        return  # a worker: the process that started it has set them
    chosen = any(option in given for option in QUICK)
    quick = "" if chosen else " ".join(f"{option}={value}" for option, value in QUICK.items())
    flags = f"{given} {DEVICES} {quick}"
    # XLA ends the process at an option that it does not know, and options come and go
    os.environ["XLA_FLAGS"] = flags if chosen or _understood(flags) else f"{given} {DEVICES}"
    _share_what_is_compiled()


def _share_what_is_compiled() -> None:
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def write_down_what_took_long() -> None:
    """A small program is compiled again as quickly as it is read, and writing it costs besides.

    For a process that runs tests. Those that it starts are short, and read what the others of
    their kind have compiled, small programs too.
    """
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def _understood(flags: str) -> bool:
    code = "import jax; jax.devices()"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    return done.returncode == 0


def forget_if_large(times: float = 1.0) -> None:
    """Drops what JAX has traced and compiled once the process has grown large."""
    if _resident_bytes() > times * min(SHARE_OF_MEMORY * _memory(), LARGE):
        forget()


def forget() -> None:
    """Drops what JAX has traced and compiled."""
    import jax

    jax.clear_caches()
    gc.collect()
    _give_back()


def hide_what_stands() -> None:
    """From searches through all objects, which a run that holds many programs takes minutes for."""
    forget()
    gc.freeze()


def collect_garbage_seldom() -> None:
    """A sixth of the suite's time went into walks over tests and JAX's traces, which live on."""
    gc.set_threshold(100_000, 20, 20)


def pass_over_what_stands() -> None:
    """To be called once the tests are collected: they live as long as the process."""
    gc.collect()
    gc.freeze()


@functools.cache
def _memory() -> float:
    """Bytes of the machine, or of the container that the process lives in."""
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if os.name == "posix" else 0
    return float(machine) if allowed == "max" else min(float(machine), float(allowed))


def _give_back() -> None:
    """Hands freed pages back to the system, which glibc keeps otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _resident_bytes() -> float:
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return float("inf")  # no way to tell: forget each time
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

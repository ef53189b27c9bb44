"""What is to be measured on an accelerator, in one run of less than ten minutes.

    python benchmarks/accelerator.py --json accelerator.json
    python benchmarks/accelerator.py --small

1. AdamW on 134 million params in 32 tensors beside the copy bandwidth of the device: the goal is
   90 % of it, one pass over the memory.
2. Elementwise and matrix methods at the shapes of GPT-2 small: step, compilation, temporary memory.
3. The peak of the device's memory after each part, where it says so.

What comes last is left out as time runs short. `--small` is the same with tiny trees.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradchain
import jax
from step_cost import TREES, Shapes, measured, same, table

ELEMENTWISE = ("adamw", "lion", "adan", "lamb", "adafactor", "schedule_free_adamw", "ademamix")
MATRIX = ("muon", "soap", "shampoo", "galore", "psgd_kron")
SECONDS = 540

Part = tuple[str, Sequence[str], Callable[[], Shapes]]


def parts(small: bool) -> list[Part]:
    """Title, methods and tree, the most important first."""
    if small:
        return [
            ("AdamW, small", ("adamw",), lambda: same(4, 32, 32)),
            ("elementwise, small", ("lion",), TREES["small"]),
        ]
    return [
        ("AdamW, 134M params in 32 tensors", ("adamw",), lambda: same(32, 2048, 2048)),
        ("elementwise, GPT-2 small", ELEMENTWISE, TREES["GPT-2 small"]),
        *((f"{name}, GPT-2 small", (name,), TREES["GPT-2 small"]) for name in MATRIX),
        ("elementwise, 1000 x 128", ELEMENTWISE[:4], TREES["1000 x 128"]),
    ]


def peak_bytes() -> int | None:
    """The most that the device has held so far; None where it does not say."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny trees, in seconds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="no part begins after these")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    device, began = jax.devices()[0], time.monotonic()
    print(f"{device.device_kind}, jax {jax.__version__}, gradchain {gradchain.__version__}")
    found: dict[str, Any] = {}
    for title, names, tree in parts(given.small):
        if time.monotonic() - began > given.seconds:
            print(f"\n{title}: left out, time is up")
            continue
        try:
            rows = measured(names, tree(), gradchain.compiler_options(update_only=True))
        except Exception as error:  # as the other parts stand whatever one method needs
            print(f"\n{title}: {str(error).partition(chr(10))[0]}", flush=True)
            continue
        peak = peak_bytes()
        print(f"\n{title}\n\n{table(rows)}")
        print(f"\n{rows[0].name}: {100 * rows[0].floor / rows[0].step:.0f} % of the copy bandwidth")
        print("peak unknown" if peak is None else f"peak so far {peak / 1e9:.2f} GB", flush=True)
        found[title] = {"peak_bytes": peak, "rows": [row.figures() for row in rows]}
        if given.json:
            given.json.write_text(json.dumps({"device": device.device_kind, **found}, indent=1))


if __name__ == "__main__":
    main()

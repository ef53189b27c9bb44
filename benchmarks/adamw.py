"""Our composed AdamW beside optax.adamw: step time, compile time and state bytes, as ratios.

    python benchmarks/adamw.py

Both run in turn in one process, so that a noisy machine is noisy for both; medians are compared.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import optax

CASES = {
    "8 leaves of 2M floats": {str(i): (2_000_000,) for i in range(8)},
    "400 leaves of 64x64": {str(i): (64, 64) for i in range(400)},
}
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "optax": lambda: optax.adamw(1e-3),
    "gradchain": lambda: gradchain.optimizers.adamw(1e-3),
}


def train_step(opt: Any) -> Callable[..., Any]:
    """Update and apply, as in a training loop."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def compiled(opt: Any, params: Any) -> tuple[Any, dict[str, float]]:
    """The compiled step, and how long each stage took in seconds."""
    state = opt.init(params)
    times = [time.perf_counter()]
    traced = jax.jit(train_step(opt), donate_argnums=(0, 1)).trace(params, state, params)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    executable = lowered.compile()
    times.append(time.perf_counter())
    stages = dict(zip(("trace", "lower", "compile"), _differences(times), strict=True))
    return executable, {**stages, "trace+lower+compile": times[-1] - times[0]}


def _differences(times: list[float]) -> Iterator[float]:
    return (b - a for a, b in itertools.pairwise(times))


def state_bytes(state: Any) -> int:
    """Bytes held by the state."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def measure(shapes: dict[str, tuple[int, ...]], compiles: int, steps: int) -> dict[str, Any]:
    """Medians for both optimizers, taken in turn."""
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    grads = jax.tree.map(lambda x: 0.1 * x, params)
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in OPTIMIZERS}
    running = {}
    for _ in range(compiles):
        for name, make in OPTIMIZERS.items():
            jax.clear_caches()
            opt = make()
            executable, stages = compiled(opt, params)
            running[name] = [executable, jax.tree.map(jnp.copy, params), opt.init(params)]
            for stage, seconds in stages.items():
                rows[name].setdefault(stage, []).append(seconds)
    for _ in range(steps):
        for name, (executable, at, state) in running.items():
            start = time.perf_counter()
            at, state = jax.block_until_ready(executable(at, state, grads))
            rows[name].setdefault("step", []).append(time.perf_counter() - start)
            running[name][1:] = at, state
    result: dict[str, Any] = {
        name: {key: statistics.median(values) for key, values in row.items()}
        for name, row in rows.items()
    }
    for name, (_, _, state) in running.items():
        result[name]["state bytes"] = state_bytes(state)
    return result


def main() -> None:
    """Prints one table per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiles", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    for title, shapes in CASES.items():
        result = measure(shapes, options.compiles, options.steps)
        print(f"\n{title}\n{'':22}{'optax':>14}{'gradchain':>14}{'ratio':>8}")
        for key, theirs in result["optax"].items():
            ours = result["gradchain"][key]
            unit = 1 if key == "state bytes" else 1e3
            name = key if key == "state bytes" else f"{key} (ms)"
            print(f"{name:22}{theirs * unit:14.2f}{ours * unit:14.2f}{ours / theirs:8.3f}")


if __name__ == "__main__":
    main()

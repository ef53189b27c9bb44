"""Matrix methods: what stacking same-shaped leaves saves, and what they cost in a training step.

    python benchmarks/matrix_methods.py
    python benchmarks/matrix_methods.py --methods shampoo --compiles 5 --steps 40

Every method is compiled and run in turn with its competitors in one process, so that a noisy
machine is noisy for all; medians are compared, as ratios:

  muon        `optax.contrib.muon` on the same matrices, one 3-D leaf per shape
  per leaf    the same method of ours in a loop over the leaves, each a problem of its own
  adamw       `optax.adamw` in the same training step of the Transformer of `examples/`
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# LAPACK's own threads fight with XLA's: factorisations take twenty times as long, or hang.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import optax
from gradchain.optimizers import distributed_shampoo, psgd_kron, shampoo
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

CASES = {"100 leaves of 64x64": (100, 64), "24 leaves of 256x256": (24, 256)}
METHODS: dict[str, Callable[[], Any]] = {
    "shampoo": lambda: shampoo(0.1),
    "distributed_shampoo": lambda: distributed_shampoo(1e-3, grafting="adam", target_ndim=2),
    "psgd_kron": lambda: psgd_kron(1e-3),
}
PERIOD = 20
"""Steps between two computations of the roots in the training step."""
BATCHES = {"batch 16 x 64": (64, 16, 64), "batch 32 x 128, width 128": (128, 32, 128)}
"""Width, batch size and context of the Transformer."""


def muon() -> optax.GradientTransformation:
    """Muon on stacks: the first axis of every leaf is a batch of matrices."""
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return optax.contrib.muon(
        1e-2, muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda _: numbers, params)
    )


def per_leaf(make: Callable[[], Any]) -> optax.GradientTransformation:
    """A transformation for every leaf alone, as a library without stacking has it."""
    opt = make()

    def init(params: Any) -> Any:
        return {name: opt.init(leaf) for name, leaf in params.items()}

    def update(grads: Any, state: Any, params: Any) -> Any:
        done = {name: opt.update(grads[name], state[name], params[name]) for name in grads}
        return tuple({name: pair[i] for name, pair in done.items()} for i in (0, 1))

    return optax.GradientTransformation(init, update)


def matrices(count: int, side: int) -> dict[str, Any]:
    """Leaves of unequal entries, so that no factorisation is trivial."""
    keys = jax.random.split(jax.random.key(0), count)
    return {str(i): jax.random.normal(key, (side, side)) for i, key in enumerate(keys)}


class Competitor:
    """An optimizer on one tree, compiled as often as wanted and stepped in turn with others."""

    def __init__(self, make: Callable[[], Any], params: Any) -> None:
        self.make, self.params = make, params
        self.building: list[float] = []
        self.stepping: list[float] = []
        self.run: Any = None

    def build(self) -> None:
        """Traces, lowers and compiles the step anew."""
        jax.clear_caches()
        opt = self.make()
        self.state = jax.jit(opt.init)(self.params)
        self.at = jax.tree.map(jnp.copy, self.params)

        def step(grads: Any, state: Any, params: Any) -> Any:
            updates, state = opt.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        start = time.perf_counter()
        compiled = jax.jit(step, donate_argnums=(1, 2)).lower(self.params, self.state, self.at)
        self.run = compiled.compile()
        self.building.append(time.perf_counter() - start)

    def step(self) -> None:
        """One step; the gradient stays the same."""
        start = time.perf_counter()
        self.at, self.state = jax.block_until_ready(self.run(self.params, self.state, self.at))
        self.stepping.append(time.perf_counter() - start)


def rounds_of(count: int, title: str) -> Iterable[int]:
    """Rounds with a progress bar on stderr."""
    return track(range(count), title, transient=True, console=Console(stderr=True))


def in_turn(competitors: Iterable[Competitor], compiles: int, steps: int, title: str) -> None:
    """Compiles and steps all of them alternately, with progress on stderr."""
    runners = list(competitors)
    for _ in rounds_of(compiles, f"{title}: compiling"):
        for one in runners:
            one.build()
    for _ in rounds_of(steps, f"{title}: stepping"):
        for one in runners:
            one.step()


def stacking(title: str, name: str, options: argparse.Namespace) -> list[str]:
    """A row: the method beside Muon on stacks and beside itself leaf by leaf."""
    count, side = CASES[title]
    params = matrices(count, side)
    ours = Competitor(METHODS[name], params)
    loop = Competitor(lambda: per_leaf(METHODS[name]), params)
    stacks = Competitor(muon, {"all": jnp.stack(list(params.values()))})
    in_turn((stacks, ours, loop), options.compiles, options.steps, f"{title}, {name}")
    building = [statistics.median(one.building) for one in (ours, stacks, loop)]
    stepping = [statistics.median(one.stepping) for one in (ours, stacks, loop)]
    return [
        name,
        f"{building[0]:.2f} s",
        f"{building[0] / building[1]:.2f}",
        f"{building[2] / building[0]:.1f}",
        f"{1e3 * stepping[0]:.1f} ms",
        f"{stepping[2] / stepping[0]:.2f}",
    ]


def training(title: str, rounds: int) -> list[str]:
    """A row: whole periods of training steps with amortised roots beside those with AdamW."""
    from flax import nnx
    from text.contender import Contender, begin, make_step
    from text.data import load
    from text.model import Transformer

    width, batch_size, context = BATCHES[title]
    text = load()
    model = Transformer(len(text.characters), width, 2, 4, nnx.Rngs(0))
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    batch = text.batch(0, batch_size, context, 0)
    every = {"update_interval": PERIOD, "grafting": "adam", "eps": 1e-8, "target_ndim": 2}
    optimizers = {
        "adamw": optax.adamw(1e-3),
        "distributed_shampoo": distributed_shampoo(1e-3, **every),
    }
    runs = {}
    for name, optimizer in optimizers.items():
        contender = Contender(name, 1e-3, None, lambda step: 1e-3, optimizer)  # type: ignore[arg-type]
        state = begin(contender, params)
        step = jax.jit(make_step(contender, model), donate_argnums=0)
        runs[name] = [step.lower(state, batch).compile(), state]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in rounds_of(rounds + 1, f"Transformer, {title}"):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(PERIOD):
                run[1], value = run[0](run[1], batch)
                jax.block_until_ready(value)
            seconds[name].append((time.perf_counter() - start) / PERIOD)
    # The first period of each is a warm-up.
    ours, theirs = (
        statistics.median(seconds[name][1:]) for name in ("distributed_shampoo", "adamw")
    )
    return [title, f"{1e3 * theirs:.1f} ms", f"{1e3 * ours:.1f} ms", f"{ours / theirs:.2f}"]


def show(title: str, header: list[str], rows: list[list[str]]) -> None:
    """An aligned table."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    print(f"\n{title}")
    for row in (header, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> None:
    """Prints one table per case, and one of training steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--compiles", type=int, default=3, help="of each program")
    parser.add_argument("--steps", type=int, default=20, help="of each program")
    parser.add_argument("--rounds", type=int, default=10, help=f"of {PERIOD} training steps")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    header = ["", "trace + compile", "to muon", "loop to it", "step", "loop to it"]
    for title in CASES:
        show(title, header, [stacking(title, name, options) for name in options.methods])
    header = ["Transformer step", "adamw", "distributed_shampoo", "ratio"]
    roots = f"amortised: roots every {PERIOD} steps, means of whole periods"
    show(roots, header, [training(title, options.rounds) for title in BATCHES])


if __name__ == "__main__":
    main()

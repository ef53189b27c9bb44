"""Matrix methods: compile and step time of one batched call per shape, as ratios.

    python benchmarks/matrix_methods.py [--methods shampoo psgd_kron] [--cases 100x64x64]

Every method stands beside itself as a loop over the leaves, and beside optax.contrib.muon, once on
leaves that are kept stacked by shape and once with the leaves stacked in every step. The bare
eigendecompositions tell how much faster than the loop a method with exact roots can be. Then
Distributed Shampoo with roots each 20 steps stands beside optax.adamw in the training step of the
Transformer example. Everything runs in turn in one process, so that a noisy machine is noisy for
all, and medians are compared, of wall and of processor time.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

# OpenBLAS's threads, which fight with XLA's for the processors, slow a small eigh down many times.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gradchain
import jax
import jax.numpy as jnp
import optax
from gradchain.transforms.kronecker import stack_same_shapes, unstack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from text.contender import CONSTANT, Contender, begin, make_step
from text.model import Transformer

PERIOD = 20
"""Steps between two computations of the roots in the amortised runs."""

CASES = {"100x64x64": (100, 64), "24x256x256": (24, 256)}
METHODS: dict[str, Callable[[], Any]] = {
    "shampoo": lambda: gradchain.optimizers.shampoo(0.1),
    "shampoo, newton": lambda: gradchain.optimizers.shampoo(0.1, root_solver="newton"),
    "distributed_shampoo": lambda: gradchain.optimizers.distributed_shampoo(
        1e-3, target_ndim=2, eps=1e-6, grafting="adam"
    ),
    "psgd_kron": lambda: gradchain.optimizers.psgd_kron(1e-3, mode="whiten", key=jax.random.key(0)),
}
MODELS = {
    "Transformer, width 64": {"width": 64, "layers": 2, "heads": 4},
    "Transformer, width 256": {"width": 256, "layers": 4, "heads": 8},
}
BATCH, CONTEXT, VOCABULARY = 16, 64, 96


class Seconds(NamedTuple):
    """What one measurement took: on the clock, and of the processors."""

    wall: float
    cpu: float


class Runner:
    """One compiled training step, its state, and what was measured of it."""

    def __init__(self, step: Callable[..., Any], state: Any, *inputs: Any):
        self.step, self.state, self.inputs = step, state, inputs
        self.compiles: list[Seconds] = []
        self.steps: list[Seconds] = []
        self.executable: Any = None

    def compile(self) -> None:
        """Traces, lowers and compiles afresh."""
        jax.clear_caches()
        start = _now()
        lowered = jax.jit(self.step, donate_argnums=0).trace(self.state, *self.inputs).lower()
        self.executable = lowered.compile()
        self.compiles.append(_since(start))

    def run(self, steps: int, count: bool = True) -> None:
        """So many steps, measured together."""
        start = _now()
        for _ in range(steps):
            self.state = self.executable(self.state, *self.inputs)
        jax.block_until_ready(self.state)
        if count:
            wall, cpu = _since(start)
            self.steps.append(Seconds(wall / steps, cpu / steps))


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def _since(start: Seconds) -> Seconds:
    return Seconds(*(b - a for a, b in zip(start, _now(), strict=True)))


def whole_tree(opt: Any, params: Any) -> Runner:
    """All leaves at once, as the library is used."""

    def step(carried: Any, grads: Any) -> Any:
        params, state = carried
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Runner(step, _own((params, opt.init(params))), _gradients(params))


def leaf_loop(opt: Any, params: Any) -> Runner:
    """Each leaf a problem of its own, one after the other, in a loop that jit unrolls."""

    def step(carried: Any, grads: Any) -> Any:
        params, state = dict(carried[0]), dict(carried[1])
        before = jnp.zeros(())
        for name, p in params.items():
            # With dozens of factorisations at a time, XLA's few threads for the CPU get stuck.
            g = jnp.where(jnp.any(jnp.isinf(before)), 0, grads[name])
            update, state[name] = opt.update({"leaf": g}, state[name], {"leaf": p})
            before = update["leaf"]
            params[name] = optax.apply_updates(p, before)
        return params, state

    state = {name: opt.init({"leaf": p}) for name, p in params.items()}
    return Runner(step, _own((params, state)), _gradients(params))


def stacked_muon(params: Any) -> Runner:
    """optax.contrib.muon, which is given the leaves as one array of three dimensions."""
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    stack = {"stack": jnp.stack(list(params.values()))}
    opt = optax.contrib.muon(1e-3, muon_weight_dimension_numbers={"stack": numbers})
    return whole_tree(opt, stack)


def stacking_muon(params: Any) -> Runner:
    """The same products on the same leaves, which every step stacks by shape and takes apart."""
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    shape = "x".join(map(str, next(iter(params.values())).shape))
    muon = optax.contrib.scale_by_muon(weight_dimension_numbers={shape: numbers})
    stacked = gradchain.flow(lambda g: unstack(stack_same_shapes(g) >> muon, g))
    return whole_tree(gradchain.chain(stacked, optax.scale_by_learning_rate(1e-3)), params)


def bare_eigh(params: Any) -> Runner:
    """Nothing but the eigendecompositions of two factors per leaf, in one call: a lower bound."""

    def step(values: Any, factors: Any) -> Any:
        return values + jnp.linalg.eigh(factors)[0]

    gradients = jnp.stack(list(_gradients(params).values()))
    transposed = jnp.swapaxes(gradients, 1, 2)
    factors = jnp.concatenate([gradients @ transposed, transposed @ gradients])
    return Runner(step, jnp.zeros(factors.shape[:2]), factors)


def _own(tree: Any) -> Any:
    """Arrays that the step may consume."""
    return jax.tree.map(jnp.copy, tree)


def _gradients(params: Any) -> Any:
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return treedef.unflatten(
        [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def training(opt: Any, sizes: dict[str, int]) -> Runner:
    """A training step of the Transformer example."""
    from flax import nnx

    model = Transformer(VOCABULARY, **sizes, rngs=nnx.Rngs(0))
    contender = Contender("", 1e-3, CONSTANT, lambda step: 1e-3, opt)
    step = make_step(contender, model)
    batch = jax.random.randint(jax.random.key(0), (BATCH, CONTEXT + 1), 0, VOCABULARY)
    start = begin(contender, nnx.state(model, nnx.Param))
    return Runner(lambda carried, batch: step(carried, batch)[0], start, batch)


def progress(text: str) -> None:
    """What is being measured, on the terminal only."""
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measure(title: str, runners: dict[str, Runner], compiles: int, rounds: int, steps: int) -> None:
    """Compiles and steps of all, in turn."""
    for i in range(compiles):
        for name, runner in runners.items():
            progress(f"{title}: compiling {name} ({i + 1}/{compiles})")
            runner.compile()
    for i in range(-1, rounds):
        for name, runner in runners.items():
            progress(f"{title}: running {name} ({i + 1}/{rounds})")
            runner.run(steps, count=i >= 0)
    progress("")


def median(measured: Iterable[Seconds]) -> Seconds:
    """Of each clock on its own."""
    return Seconds(*map(statistics.median, zip(*measured, strict=True)))


def table(title: str, runners: dict[str, Runner], pairs: list[tuple[str, str]]) -> None:
    """Medians, then the ratios of the pairs, of wall and processor time."""
    heads = ("compile s", "cpu s", "step ms", "cpu ms")
    print(f"\n{title:38}" + "".join(f"{head:>11}" for head in heads))
    medians = {name: (median(r.compiles), median(r.steps)) for name, r in runners.items()}
    for name, (compiled, step) in medians.items():
        figures = (*compiled, *(1e3 * seconds for seconds in step))
        print(f"{name:38}" + "".join(f"{figure:11.2f}" for figure in figures))
    for one, two in pairs:
        ratios = [
            a / b
            for ours, theirs in zip(medians[one], medians[two], strict=True)
            for a, b in zip(ours, theirs, strict=True)
        ]
        print(f"{f'{one} : {two}':38}" + "".join(f"{ratio:11.2f}" for ratio in ratios))


def main() -> None:
    """Prints one table per case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--compiles", type=int, default=3, help="compilations of each program")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds of steps")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for case in options.cases:
        count, side = CASES[case]
        params = {f"leaf {i}": jnp.ones((side, side)) for i in range(count)}
        for name in options.methods:
            opt = METHODS[name]()
            runners = {
                name: whole_tree(opt, params),
                "leaf by leaf": leaf_loop(opt, params),
                "bare eigh": bare_eigh(params),
                "muon on stacks": stacked_muon(params),
                "muon that stacks": stacking_muon(params),
            }
            measure(f"{case}, {name}", runners, options.compiles, options.rounds, 1)
            loop = "leaf by leaf"
            pairs = [(name, "muon on stacks"), (name, "muon that stacks"), (loop, name)]
            pairs += [(loop, "bare eigh")]
            table(case, runners, pairs)
    for title in options.models:
        amortised = gradchain.optimizers.distributed_shampoo(
            1e-3, target_ndim=2, eps=1e-8, grafting="adam", update_interval=PERIOD
        )
        runners = {
            "distributed_shampoo": training(amortised, MODELS[title]),
            "adamw": training(optax.adamw(1e-3), MODELS[title]),
        }
        measure(title, runners, 1, options.rounds, PERIOD)
        table(title, runners, [("distributed_shampoo", "adamw")])


if __name__ == "__main__":
    main()

"""What a step costs: time against the floor of the machine, tracing, compilation, program, memory.

    python benchmarks/step_cost.py adamw lion lamb
    python benchmarks/step_cost.py --trees "8 x 2M" --json cost.json --plot cost.png
    python benchmarks/step_cost.py all --trees "300 x 64x64"
    python benchmarks/step_cost.py --growth --json growth.json --plot growth.png
    python benchmarks/step_cost.py --report
    python benchmarks/step_cost.py --report --continue

Beside our methods runs Optax's of the same name; torch's fused and multi-tensor ones, and those of
`pytorch_optimizer`, where these are installed. `all` is every transformation of the catalogue. The
floor of a method is the time in which the machine copies as many bytes as the step must read and
write: gradients once, params and state twice, and once more what is looked at for a norm or a rank
that must be known before the update (see `kernel_bytes.py`). It is measured next to every step,
because shared machines swing by two; a method and its peers take turns, the least times are
compared, and the fastest copy beside any of them is the floor of all.

`--report` measures the default methods on every tree and on those that grow, and makes the file and
both plots of the documentation, the second beside the first as `*_growth.png`. The file is written
after each method; `--continue` goes on with it, and with none left to measure makes the plots.
"""

import argparse
import functools
import importlib
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import optax
from gradchain.catalogue import METHODS, get_method
from kernel_bytes import Program
from peak_memory import INPUTS, every_transformation, size_of
from step_cost_plots import plot_growth, plot_steps


def optional(package: str) -> Any:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


torch, pytorch_optimizer = optional("torch"), optional("pytorch_optimizer")

ROUNDS = 6
STEPS = 4
SECONDS = 12.0
"""After so many there is no further round of a method and its peers."""

OPTAX_AT_MOST = {"lamb": 400}
"""Leaves for which Optax's is compiled: LAMB's takes 4 s for 200, 25 for 400, minutes for 800."""

HERE = Path(__file__).parent
REPORT = HERE / "step_cost.json"
IMAGE = HERE.parent / "docs" / "images" / "step_cost.png"
LEAVES = (4, 16, 64, 256)
"""Leaves of 64x64."""
WIDTHS = (64, 256, 1024, 2048)
"""Of four square leaves."""

WHOLE = ("8 x 2M", "300 x 64x64", "1000 x 128", "GPT-2 small")
"""Trees on which methods are compared."""

Shapes = dict[str, tuple[int, ...]]
Found = dict[str, list[dict[str, Any]]]
"""Rows by the tree."""


def gpt2_small() -> Shapes:
    """124 million params in 148 leaves."""
    width, layers = 768, 12
    block: Shapes = {
        "attention": (width, 3 * width), "attention_bias": (3 * width,),
        "projection": (width, width), "projection_bias": (width,),
        "up": (width, 4 * width), "up_bias": (4 * width,),
        "down": (4 * width, width), "down_bias": (width,),
        "norm_1": (width,), "norm_1_bias": (width,), "norm_2": (width,), "norm_2_bias": (width,),
    }  # fmt: skip
    found = {f"{i}/{name}": shape for i in range(layers) for name, shape in block.items()}
    ends: Shapes = {"tokens": (50257, width), "places": (1024, width)}
    return {**ends, **found, "norm": (width,), "norm_bias": (width,)}


def same(count: int, *shape: int) -> Shapes:
    return {str(i): shape for i in range(count)}


TREES: dict[str, Callable[[], Shapes]] = {
    "8 x 2M": lambda: same(8, 1000, 2000),
    "300 x 64x64": lambda: same(300, 64, 64),
    "1000 x 128": lambda: same(1000, 128),
    "GPT-2 small": gpt2_small,
    "small": lambda: same(3, 8, 8),
}
TREES |= {
    f"{count} x {width}x{width}": functools.partial(same, count, width, width)
    for count, width in (*((n, 64) for n in LEAVES), *((4, w) for w in WIDTHS))
}
ELEMENTWISE = ("sgd", "adam", "adamw", "lion", "adan", "adabelief", "schedule_free_adamw", "lamb")
OPTAX: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optax.sgd(1e-3, momentum=0.9),
    "adam": lambda: optax.adam(1e-3),
    "adamw": lambda: optax.adamw(1e-3),
    "adabelief": lambda: optax.adabelief(1e-3),
    "adafactor": lambda: optax.adafactor(1e-3),
    "adan": lambda: optax.adan(1e-3),
    "amsgrad": lambda: optax.amsgrad(1e-3),
    "lamb": lambda: optax.lamb(1e-3),
    "lars": lambda: optax.lars(1e-3),
    "lion": lambda: optax.lion(1e-3),
    "muon": lambda: optax.contrib.muon(1e-3),
    "schedule_free_adamw": lambda: optax.contrib.schedule_free_adamw(1e-3),
}
"""What a user of Optax would take instead."""

SETTINGS: dict[str, dict[str, Any]] = {"shampoo": {"max_dim": 8192}}
"""Without which a method is not for these trees: nobody decomposes a matrix of 50257 x 50257."""

TORCH = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}
PYTORCH_OPTIMIZER = {
    "adabelief": "AdaBelief", "adan": "Adan", "adopt": "ADOPT", "lamb": "Lamb", "lion": "Lion",
    "prodigy": "Prodigy", "schedule_free_adamw": "ScheduleFreeAdamW", "tiger": "Tiger",
}  # fmt: skip
"""What a user of torch would take instead."""


@dataclass
class Row:
    """One method on one tree.

    Attributes:
      name: of the method, with whose it is.
      trace: seconds to trace and lower.
      compile: seconds of the compiler.
      lines: of the lowered program, per leaf.
      state: bytes per param.
      temporary: bytes per param beyond params, gradients and state.
      accessed: bytes that the kernels of the program read and write, as a multiple of `moved`: XLA
        for the CPU makes a kernel for every result, so it reads some arrays more than once.
      step: seconds, the least.
      floor: seconds in which as many bytes are copied.
    """

    name: str
    trace: float = 0.0
    compile: float = 0.0
    lines: float = 0.0
    state: float = 0.0
    temporary: float = 0.0
    accessed: float = 0.0
    step: float = float("inf")
    floor: float = float("inf")
    run: Callable[[], None] = field(default=lambda: None, repr=False)
    moved: int = 0

    def figures(self) -> dict[str, Any]:
        """Without what runs it."""
        return {name: value for name, value in vars(self).items() if name != "run"}


class Copying:
    """The machine's bandwidth, measured when asked for."""

    def __init__(self, size: int) -> None:
        self.array = jnp.ones(max(size // 4, 1))
        self.copy = jax.jit(lambda x: x + 1.0, donate_argnums=0)
        self.array = jax.block_until_ready(self.copy(self.array))

    def seconds(self, moved: int) -> float:
        """In which so many bytes are read or written in place."""
        start = time.perf_counter()
        self.array = jax.block_until_ready(self.copy(self.array))
        return (time.perf_counter() - start) * moved / (2 * self.array.nbytes)


def jax_row(name: str, opt: Any, shapes: Shapes, options: dict[str, Any]) -> Row:
    """A method compiled, and ready to run."""
    params = {key: jnp.ones(shape) for key, shape in shapes.items()}
    grads = jax.tree.map(lambda x: 0.1 * x, params)
    state = jax.jit(opt.init)(params)
    names = [n for n in gradchain.needs(opt) if n != "params"] if hasattr(opt, "needs") else []

    def step(params: Any, state: Any, grads: Any) -> Any:
        extra = {n: INPUTS[n](params) for n in names}
        updates, state = opt.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    times = [time.perf_counter()]
    jitted = jax.jit(step, donate_argnums=(0, 1), compiler_options=options)
    lowered = jitted.lower(params, state, grads)
    times.append(time.perf_counter())
    program = lowered.compile()
    times.append(time.perf_counter())
    analysis, count = program.memory_analysis(), size_of(params) / 4
    traffic = Program(program.as_text()).whole()
    moved = 3 * size_of(params) + 2 * size_of(state) + round(traffic.looked_at)
    held = [params, state]

    def run() -> None:
        held[:] = jax.block_until_ready(program(*held, grads))

    return Row(
        name,
        times[1] - times[0],
        times[2] - times[1],
        lowered.as_text().count("\n") / len(shapes),
        size_of(state) / count,
        analysis.temp_size_in_bytes / count,
        traffic.moved / moved,
        run=run,
        moved=moved,
    )


def torch_rows(name: str, shapes: Shapes) -> list[Row]:
    """torch's own optimizer of that name, fused and not, and that of pytorch_optimizer."""
    found = []
    for shown, build in torch_makers(name).items():
        params = [torch.ones(shape, requires_grad=True) for shape in shapes.values()]
        for param in params:
            param.grad = 0.1 * torch.ones_like(param)
        try:
            opt = build(params)
            opt.step()
        except Exception as error:  # as the other rows stand whatever one peer needs
            print(f"{shown}: {str(error).partition(chr(10))[0]}", flush=True)
            continue
        count = sum(param.numel() for param in params)
        held = (x for state in opt.state.values() for x in state.values())
        state = sum(x.nbytes for x in held if isinstance(x, torch.Tensor))
        moved = 3 * 4 * count + 2 * state
        found.append(Row(shown, state=state / count, run=opt.step, moved=moved))
    return found


def torch_makers(name: str) -> dict[str, Callable[[Any], Any]]:
    """What there is of that name in torch, if it is installed; it is measured on a CPU only."""
    if jax.default_backend() != "cpu":
        return {}
    own = getattr(getattr(torch, "optim", None), TORCH.get(name, ""), None)
    others = getattr(pytorch_optimizer, PYTORCH_OPTIMIZER.get(name, ""), None)
    settings: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {}
    made: dict[str, Callable[[Any], Any]] = {
        f"torch {name}, {form}": functools.partial(own, lr=1e-3, **settings, **{form: True})
        for form in (("fused", "foreach") if own else ())
    }
    if others:
        made[f"pytorch_optimizer {name}"] = functools.partial(others, lr=1e-3)
    return made


def measured(names: Sequence[str], shapes: Shapes, options: dict[str, Any]) -> list[Row]:
    """All rows of one tree."""
    return [row for name in names for row in measured_one(name, shapes, options)]


def measured_one(name: str, shapes: Shapes, options: dict[str, Any]) -> list[Row]:
    """A method and its peers, whose steps take turns; nothing where it does not run."""
    try:
        rows = [jax_row(name, METHODS[name].build(**SETTINGS.get(name, {})), shapes, options)]
    except Exception as error:  # as the other rows stand whatever one method needs
        print(f"{name}: {str(error).partition(chr(10))[0]}", flush=True)
        return []
    if name in OPTAX and len(shapes) <= OPTAX_AT_MOST.get(name, len(shapes)):
        rows.append(jax_row(f"optax {name}", OPTAX[name](), shapes, options))
    rows += torch_rows(name, shapes)
    copying = Copying(max(row.moved for row in rows) // 2)
    started = time.perf_counter()
    for turn in range(ROUNDS):
        if turn and time.perf_counter() - started > SECONDS:
            break
        for row in random.Random(turn).sample(rows, len(rows)):
            row.floor = min(row.floor, copying.seconds(row.moved))
            row.run()
            for _ in range(STEPS - 1):
                start = time.perf_counter()
                row.run()
                row.step = min(row.step, time.perf_counter() - start)
    least = min(row.floor / row.moved for row in rows)
    for row in rows:
        row.floor = least * row.moved
    return rows


def table(rows: list[Row]) -> str:
    """In Markdown."""
    lines = [
        "| method | step, ms | : floor | accessed : floor | trace, ms | compile, ms "
        "| lines per leaf | state, bytes per param | temporary |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            f"{1e3 * row.step:.2f}", f"{row.step / row.floor:.2f}",
            f"{row.accessed:.2f}" if row.accessed else "-", f"{1e3 * row.trace:.0f}",
            f"{1e3 * row.compile:.0f}", f"{row.lines:.1f}", f"{row.state:.2f}",
            f"{row.temporary:.2f}",
        )  # fmt: skip
        lines.append(f"| `{row.name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """When this is measured, and what of."""
    found = {"date": time.strftime("%Y-%m-%d"), "gradchain": gradchain.__version__}
    for package in (jax, optax, torch, pytorch_optimizer):
        if package is not None:
            found[package.__name__] = metadata.version(package.__name__)
    return found


def chosen(names: Sequence[str]) -> list[str]:
    """The methods of these names; an unknown one is a ValueError that suggests the nearest."""
    if list(names) == ["all"]:
        return [method.name for method in every_transformation()]
    return [get_method(name).name for name in names] or list(ELEMENTWISE)


def measured_on(
    trees: Sequence[str], names: Sequence[str], options: dict[str, Any], found: Found
) -> Iterator[None]:
    """Measures what is not found yet, and enters it; one method on one tree at a time."""
    for tree in trees:
        for name in names:
            rows = found.setdefault(tree, [])
            if not any(row["name"] == name for row in rows):
                rows += [row.figures() for row in measured_one(name, TREES[tree](), options)]
                yield


def grown(most: int) -> tuple[dict[str, int], dict[str, int]]:
    """The trees that grow, up to so many steps, by their leaves, and by their params."""
    by_leaves = {f"{count} x 64x64": count for count in LEAVES[:most]}
    by_params = {f"4 x {width}x{width}": 4 * width**2 for width in WIDTHS[:most]}
    return by_leaves, by_params


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("methods", nargs="*", help=f"default {' '.join(ELEMENTWISE)}")
    parser.add_argument("--trees", nargs="+", choices=TREES, default=["8 x 2M", "300 x 64x64"])
    parser.add_argument("--plain", action="store_true", help="without the advised options of XLA")
    parser.add_argument("--growth", action="store_true", help="how cost grows with the tree")
    parser.add_argument("--report", action="store_true", help="all trees, growth, file and plots")
    parser.add_argument("--small", action="store_true", help="the smallest trees in place of all")
    parser.add_argument("--continue", dest="goes_on", action="store_true", help="with the file")
    parser.add_argument("--most", type=int, default=4, help="how many sizes of those that grow")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    try:
        given.methods = chosen(given.methods)
    except ValueError as error:
        parser.error(str(error))
    if given.goes_on and not (given.json or given.report):
        parser.error("--continue needs --report, or the --json FILE that it goes on with")
    given.most = 1 if given.small else given.most
    if given.report:
        given.trees = list(WHOLE)
        given.json, given.plot = given.json or REPORT, given.plot or IMAGE
    if given.small:
        given.trees = ["small"]
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    options = {} if given.plain else gradchain.compiler_options(update_only=True)
    by_leaves, by_params = grown(given.most)
    growing = list(dict.fromkeys((*by_leaves, *by_params))) if given.growth or given.report else []
    compared = [] if given.growth else given.trees
    made: dict[str, Any] = {"versions": versions(), "trees": {}}
    if given.goes_on and given.json.exists():
        made["trees"] = json.loads(given.json.read_text())["trees"]
    for _ in measured_on([*compared, *growing], given.methods, options, made["trees"]):
        if given.json:
            part = given.json.with_suffix(".part")  # a run that is cut here loses no file
            part.write_text(json.dumps(made, indent=1))
            part.replace(given.json)
    found = {tree: [Row(**row) for row in rows] for tree, rows in made["trees"].items()}
    for tree in (*compared, *growing):
        print(f"\n{tree}\n\n{table(found[tree])}", flush=True)
    if given.plot and compared:
        plot_steps({tree: found[tree] for tree in compared}, given.plot)
    if given.plot and growing:
        path = given.plot.with_stem(f"{given.plot.stem}_growth") if compared else given.plot
        plot_growth(found, by_leaves, by_params, path)


if __name__ == "__main__":
    main()

"""How long the update of every method takes to compile on many small leaves, against Adam's.

    python benchmarks/compile_time.py sam ranger21
    python benchmarks/compile_time.py all --leaves 180 1500 --json compile_time.json
    python benchmarks/compile_time.py muon adafactor --trees "GPT-2 small"

Leaves of 8x8, or a tree of `step_cost.py`. Seconds of the processor to trace, lower and compile the
update alone, whose state is donated; nothing is allocated or run. Adam is compiled beside every
method, as shared machines swing. What evaluates a loss itself is compared with Adam and as many
evaluations by themselves: of half the sum of the squares of all entries, where the method reads
that value, of its derivative along a tree where it evaluates that, and else of its gradient.

Beside each method stands the floor: a trivial step that reads and writes as many arrays of the same
shapes, `0.9 x + 0.1 g`, leaf by leaf in plain JAX and on stacks of the leaves that are alike.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
from gradchain.catalogue import METHODS
from gradchain.transforms.notation.crowds import MANY, gathered, parted
from gradchain.transforms.notation.places import sharing_places
from rich.progress import Progress
from step_cost import TREES, Shapes, chosen, same, versions


@dataclass
class Row:
    """One method on one tree.

    Attributes:
      name: of the method.
      trace: seconds to trace and lower.
      compile: seconds of the compiler.
      evaluations: how often the method evaluates the loss.
      fair: what `trace` and `compile` are divided by: Adam's, and those of as many evaluations.
      floor: seconds of a trivial step that writes the same arrays, leaf by leaf.
      floor_stacked: the same on stacks of leaves that are alike.
      lines: of the compiled program, per leaf.
      temporary: bytes per param beyond arguments and results.
    """

    name: str
    trace: float
    compile: float
    evaluations: int
    fair: float
    floor: float
    floor_stacked: float
    lines: float
    temporary: float

    @property
    def ratio(self) -> float:
        return (self.trace + self.compile) / self.fair


class Loss:
    """Half the sum of the squares of all entries; counts its evaluations.

    Attributes:
      evaluations: all.
      slopes: those of them that give a derivative in forward mode.
    """

    def __init__(self) -> None:
        self.evaluations = self.slopes = 0

    def __call__(self, params: Any, *_: Any) -> Any:
        self.evaluations += 1
        self.slopes += any(type(x).__name__ == "JVPTracer" for x in jax.tree.leaves(params))
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params)) / 2

    def outputs(self, params: Any) -> Any:
        """Of two examples and three classes."""
        return jnp.outer(jnp.array([1.0, 2.0]), jnp.array([0.1, -0.2, 0.3])) * self(params)


GIVEN: dict[str, Callable[[Any], Any]] = {
    "value": lambda params: jax.ShapeDtypeStruct((), jnp.float32),
    "hessian_diag": lambda params: params,
    "guess": lambda params: params,
    "previous_grads": lambda params: params,
    "global_update": lambda params: params,
    "shard": lambda params: jax.ShapeDtypeStruct((), jnp.int32),
    "cluster": lambda params: jax.ShapeDtypeStruct((), jnp.int32),
    "layer_inputs": lambda params: jax.tree.map(_of_two_examples(0), params),
    "layer_cotangents": lambda params: jax.tree.map(_of_two_examples(1), params),
}
"""What a method may ask for beside the gradient, that a training step has."""

CLOSURES: dict[str, Callable[[Loss], Any]] = {
    "value_fn": lambda loss: loss,
    "proxy_fn": lambda loss: loss,
    "value_fns": lambda loss: loss,
    "grad_fn": lambda loss: jax.grad(loss),
    "operator_fn": lambda loss: jax.grad(loss),
    "logits_fn": lambda loss: loss.outputs,
    "outputs_fn": lambda loss: loss.outputs,
    "outputs_loss_fn": lambda loss: lambda outputs: jnp.sum(outputs),
}
"""And that it evaluates itself."""


def _of_two_examples(axis: int) -> Callable[[Any], Any]:
    def of(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((2, leaf.shape[axis]), leaf.dtype) if leaf.ndim == 2 else None

    return of


@dataclass
class Compiled:
    """A program, and the seconds of the processor that it took to trace and to compile it."""

    trace: float
    compile: float
    program: Any

    @classmethod
    def of(cls, fn: Callable[..., Any], *args: Any, donated: Sequence[int] = ()) -> "Compiled":
        gc.collect()
        gc.freeze()  # what is left of programs before is not looked through for garbage in this one
        start = time.process_time()
        lowered = jax.jit(fn, donate_argnums=donated).lower(*args)
        traced = time.process_time()
        program = lowered.compile()
        return cls(traced - start, time.process_time() - traced, program)

    @property
    def seconds(self) -> float:
        return self.trace + self.compile


def update_of(opt: Any, params: Any, loss: Loss) -> Compiled:
    """The update alone, of abstract params."""
    names = gradchain.needs(opt)
    given = {name: GIVEN[name](params) for name in names if name in GIVEN}
    own = {name: CLOSURES[name](loss) for name in names if name in CLOSURES}

    def update(grads: Any, state: Any, params: Any, given: Any) -> Any:
        updates, state = opt.update(grads, state, params, **given, **own)
        return state, updates  # in this order the state takes the place of the old one

    state = jax.eval_shape(opt.init, params)
    loss.evaluations = loss.slopes = 0
    return Compiled.of(update, params, state, params, given, donated=(1,))


def trivial_step(params: Any, is_stacked: bool) -> Callable[[Any, Any], Any]:
    """What reads and writes every array of a state, and updates like the params, and little else.

    Args:
      params: a dictionary of leaves.
      is_stacked: whether leaves that are alike are computed in a stack, if there are many.
    """

    def moved(old: Any, grad: Any) -> Any:
        if not jnp.issubdtype(old.dtype, jnp.inexact):
            return old ^ 1 if jnp.issubdtype(old.dtype, jnp.integer) else ~old
        return 0.9 * old + (0.1 * grad if old.shape == grad.shape else 0)

    @sharing_places()
    def step(grads: Any, state: Any) -> Any:
        kinds: dict[Any, list[int]] = {}
        paths, structure = jax.tree_util.tree_flatten_with_path((state, grads))
        arrays = [array for _, array in paths]
        names = [next((key.key for key in path if _names(key, params)), None) for path, _ in paths]
        beside = [grads.get(name, jnp.float32(0)) for name in names]
        for i, (path, array) in enumerate(paths):
            rest = tuple(key for key in path if not _names(key, params))
            kinds.setdefault((rest, array.shape, array.dtype), []).append(i)
        for where in kinds.values():
            if is_stacked and len(where) >= MANY:
                rows = gathered([(arrays[i], beside[i]) for i in where])
                made = parted(jax.vmap(moved)(*rows), len(where))
            else:
                made = [moved(arrays[i], beside[i]) for i in where]
            arrays = [*arrays]
            for i, array in zip(where, made, strict=True):
                arrays[i] = array
        return jax.tree.unflatten(structure, arrays)

    return step


def _names(key: Any, params: Any) -> bool:
    return isinstance(key, jax.tree_util.DictKey) and key.key in params


def floor_of(opt: Any, params: Any, is_stacked: bool) -> float:
    """Seconds for a step that writes what the method writes, and does next to nothing."""
    state = jax.eval_shape(opt.init, params)
    return Compiled.of(trivial_step(params, is_stacked), params, state, donated=(1,)).seconds


def slope_of(loss: Loss) -> Callable[[Any, Any], Any]:
    """Its derivative at the first tree along the second."""
    return lambda params, along: jax.jvp(loss, (params,), (along,))[1]


def reads_the_value(name: str) -> bool:
    """Whether the method's step depends on what the loss is, not on its gradient alone."""
    entry = METHODS[name]
    return entry.family == "zeroth_order" or "outputs_fn" in gradchain.needs(entry.build())


def measured(
    names: Sequence[str], shapes: Shapes, failed: Callable[[str], None]
) -> Iterator[Row | None]:
    """A row for each method, None where it does not compile; that is said instead."""
    params = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}
    count = sum(leaf.size for leaf in params.values())
    update_of(METHODS["sgd"].build(), params, Loss())  # what JAX compiles once
    gradient, value = (Compiled.of(fn(Loss()), params).seconds for fn in (jax.grad, jax.jit))
    slope = Compiled.of(slope_of(Loss()), params, params).seconds
    reads_value = {name for name in names if reads_the_value(name)}
    for name in names:
        adam = update_of(METHODS["adam"].build(), params, Loss()).seconds
        loss, opt = Loss(), METHODS[name].build()
        try:
            found = update_of(opt, params, loss)
        except Exception as error:  # as the other rows stand whatever one method needs
            failed(f"{name}: {str(error).partition(chr(10))[0]}")
            yield None
            continue
        yield Row(
            name,
            found.trace,
            found.compile,
            loss.evaluations,
            adam
            + loss.slopes * slope
            + (loss.evaluations - loss.slopes) * (value if name in reads_value else gradient),
            floor_of(opt, params, is_stacked=False),
            floor_of(opt, params, is_stacked=True),
            found.program.as_text().count("\n") / len(shapes),
            found.program.memory_analysis().temp_size_in_bytes / count,
        )


def table(rows: Sequence[Row]) -> str:
    """In Markdown, the slowest first."""
    lines = [
        "| method | : Adam | floor | stacked | evaluations | trace, s | compile, s "
        "| lines per leaf | temporary |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row.ratio):
        cells = (
            f"{row.ratio:.1f}", f"{row.floor / row.fair:.1f}",
            f"{row.floor_stacked / row.fair:.1f}", f"{row.evaluations}",
            f"{row.trace:.2f}", f"{row.compile:.2f}",
            f"{row.lines:.0f}", f"{row.temporary:.1f}",
        )  # fmt: skip
        lines.append(f"| `{row.name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured_on(
    trees: dict[str, Shapes], names: Sequence[str], saved: Callable[[dict[str, list[Row]]], None]
) -> dict[str, list[Row]]:
    """The rows of every tree, behind a progress bar; what there is is saved after each."""
    found: dict[str, list[Row]] = {tree: [] for tree in trees}
    with Progress() as progress:
        task = progress.add_task("", total=len(names) * len(trees))
        for tree, shapes in trees.items():
            rows = measured(names, shapes, progress.console.print)
            for name in names:
                progress.update(task, description=f"{tree}, {name}")
                found[tree] += filter(None, [next(rows)])
                progress.advance(task)
                saved(found)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("methods", nargs="+", help="names of the catalogue, or `all`")
    parser.add_argument("--leaves", nargs="*", type=int, help="how many of 8x8; default 180")
    parser.add_argument("--trees", nargs="*", choices=TREES, default=[])
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after each method")
    given = parser.parse_args(arguments)
    try:
        names = chosen(given.methods)
    except ValueError as error:
        parser.error(str(error))
    counts = given.leaves or ([] if given.trees else [180])
    trees = {f"{count} x 8x8": same(count, 8, 8) for count in counts}
    trees |= {name: TREES[name]() for name in given.trees}

    def saved(found: dict[str, list[Row]]) -> None:
        if given.json:
            plain = {tree: [asdict(row) for row in rows] for tree, rows in found.items()}
            given.json.write_text(json.dumps({"versions": versions(), **plain}, indent=1))

    for tree, rows in measured_on(trees, names, saved).items():
        print(f"\n{tree}\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()

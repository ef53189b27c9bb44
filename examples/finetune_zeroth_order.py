"""Adapts a small Transformer from prose to code without backward passes, by every method that can.

    python examples/finetune_zeroth_order.py
    python examples/finetune_zeroth_order.py --passes 2000 --methods mezo zo_adam

The model is first trained with AdamW on the prose of the language reference behind `help()`, then
adapted to its examples of code. Every method starts from the same weights and has the same number
of forward passes. The run leaves `results.json`, `curves.png`, and `mezo.log`: eight bytes per
step, from which MeZO's final weights are rebuilt, to the bit, without data.

All methods of the family run, and three need more than a loss: zo2 takes the model block by block
(it is MeZO on the tuple of blocks), forward_gradient in activations takes the loss in these stages,
and zo_hybrid back-propagates for the last block and the head alone. forward_gradient_local draws
its guesses: guesses of auxiliary heads, as in its paper, would need a model that has some.
"""

import argparse
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from flax import nnx
from gradchain import optimizers
from gradchain.transforms.zeroth_order import StagedLoss, replay, staged_loss
from rich.console import Console
from rich.live import Live
from rich.table import Table
from text.model import Transformer, cross_entropy

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CONTEXT, BATCH, WIDTH, LAYERS, HEADS = 48, 16, 32, 2, 4
ENTRY = struct.Struct("<if")
"""One step in a log: its number and its slope."""


@dataclass(frozen=True)
class Contender:
    """A method with its rate, and its forward passes per step; a derivative counts as two.

    Attributes:
      optimizer: the method.
      passes: forward passes of a step.
      takes: what it is given: "loss", "stages" (the loss in stages), "gradient" (that of the leaves
        "fo", too), or "blocks" (zo2).
    """

    optimizer: Any
    passes: int
    takes: str = "loss"


def output_first(params: Any) -> Any:
    """Labels of zo_hybrid: "fo" for the last block and what is behind it, "zo" for the others."""

    def label(path: Any, _: Any) -> str:
        names = [entry.key for entry in path]
        is_behind = names[0] in ("norm", "head") or names[:2] == ["blocks", LAYERS - 1]
        return "fo" if is_behind else "zo"

    return jax.tree_util.tree_map_with_path(label, params)


CONTENDERS: dict[str, Contender] = {
    "mezo": Contender(optimizers.mezo(3e-4), 2),
    "zo_sgd, 4 one-sided": Contender(optimizers.zo_sgd(6e-4, n_samples=4, one_sided=True), 5),
    "zo_sgd_momentum": Contender(optimizers.zo_sgd_momentum(3e-5), 2),
    "zo_sign_sgd": Contender(optimizers.zo_sign_sgd(3e-4), 2),
    "zo_sgd_conservative": Contender(optimizers.zo_sgd_conservative(5e-4), 5),
    "zo_adam": Contender(optimizers.zo_adam(3e-4), 2),
    "zo_adamu": Contender(optimizers.zo_adamu(3e-4), 2),
    "zo_sparse": Contender(optimizers.zo_sparse(3e-3), 2),
    "zo_block_coordinate": Contender(optimizers.zo_block_coordinate(3e-4), 8),
    "zeroflow": Contender(optimizers.zeroflow(3e-4, history=0.9), 2),
    "zo_hybrid": Contender(
        optimizers.zo_hybrid(optimizers.mezo(3e-4), optax.sgd(3e-2), output_first), 4, "gradient"
    ),
    "zo2": Contender(optimizers.zo2(3e-4), 2, "blocks"),
    "forward_gradient": Contender(optimizers.forward_gradient(3e-4), 2),
    "forward_gradient, activations": Contender(
        optimizers.forward_gradient(1e-4, space="activations"), 4, "stages"
    ),
    "forward_gradient_local": Contender(
        optimizers.forward_gradient_local(
            optax.sgd(8.0), guess="normal", scope="global", target="value_fn"
        ),
        2,
    ),
}


def texts() -> tuple[np.ndarray, np.ndarray, int]:
    """Codes of the prose and of the code in the language reference, and how many characters."""
    paragraphs = [part for name in sorted(topics) for part in topics[name].split("\n\n")]
    is_code = [part.startswith("   ") and any(c in part for c in "=(:") for part in paragraphs]
    characters = sorted(set("\n".join(paragraphs)))
    number = {character: i for i, character in enumerate(characters)}
    prose, code = (
        np.array([number[c] for p, flag in zip(paragraphs, is_code, strict=True) if flag is wanted
                  for c in p + "\n\n"], np.int32)
        for wanted in (False, True)
    )  # fmt: skip
    return prose, code, len(characters)


def windows(text: np.ndarray, random: np.random.Generator, count: int) -> np.ndarray:
    starts = random.integers(0, len(text) - CONTEXT - 1, count)
    return text[starts[:, None] + np.arange(CONTEXT + 1)]


def pretrained(
    loss_of: Callable[..., jax.Array], params: Any, prose: np.ndarray, steps: int
) -> Any:
    """The params after AdamW on the prose."""
    opt = optax.adamw(optax.cosine_decay_schedule(4e-3, steps))
    random = np.random.default_rng(0)

    @jax.jit
    def step(params: Any, state: Any, batch: jax.Array) -> Any:
        grads = jax.grad(loss_of)(params, batch)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    for _ in range(steps):
        params, state = step(params, state, windows(prose, random, BATCH))
    return params


def blocks_of(params: Any) -> tuple[Any, ...]:
    """The params of the model's blocks, in the order of its forward pass."""
    inner = (params["blocks"][i] for i in range(LAYERS))
    return params["embed"], *inner, {name: params[name] for name in ("norm", "head")}


def params_of(blocks: tuple[Any, ...]) -> Any:
    """The inverse of `blocks_of`."""
    embed, *inner, behind = blocks
    return {"embed": embed, "blocks": dict(enumerate(inner)), **behind}


class Model:
    """The Transformer as functions of params: its loss whole, in stages, and block by block.

    Args:
      vocabulary: how many characters.
    """

    def __init__(self, vocabulary: int):
        model = Transformer(vocabulary, WIDTH, LAYERS, HEADS, nnx.Rngs(0))
        self.graph, state = nnx.split(model)
        self.params = nnx.to_pure_dict(state)
        self.norm, self.head = nnx.split(model.norm)[0], nnx.split(model.head)[0]
        parts = [nnx.split(part)[0] for part in (model.embed, *model.blocks)]
        self.inner = [partial(self.hand_on, part) for part in parts]
        self.blockwise = [*self.inner, lambda block, x: jnp.mean(self.losses(block, x))]
        """Functions of zo2: `(block, (x, targets)) -> (x, targets)`, and the loss."""

    def loss(self, params: Any, batch: jax.Array) -> jax.Array:
        return cross_entropy(nnx.merge(self.graph, params)(batch[:, :-1]), batch[:, 1:])

    def staged(self, batch: jax.Array) -> StagedLoss:
        """The same loss in stages, with one number per sample."""

        def stage(i: int, params: Any, x: jax.Array) -> jax.Array:
            return self.inner[i](blocks_of(params)[i], (x, batch[:, 1:]))[0]

        def losses(params: Any, x: jax.Array) -> jax.Array:
            return self.losses(blocks_of(params)[-1], (x, batch[:, 1:]))

        return staged_loss([*(partial(stage, i) for i in range(LAYERS + 1)), losses], batch[:, :-1])

    def gradient_near_output(self, params: Any, batch: jax.Array) -> Any:
        """The gradient of the leaves "fo"; back-propagation stops there, others have zeros."""

        def loss(params: Any) -> jax.Array:
            held = jax.tree.map(
                lambda label, x: x if label == "fo" else jax.lax.stop_gradient(x),
                output_first(params),
                params,
            )
            return self.loss(held, batch)

        return jax.grad(loss)(params)

    @staticmethod
    def hand_on(part: Any, block: Any, x: Any) -> Any:
        return nnx.merge(part, block)(x[0]), x[1]

    def losses(self, block: Any, x: Any) -> jax.Array:
        logits = nnx.merge(self.head, block["head"])(nnx.merge(self.norm, block["norm"])(x[0]))
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, x[1])
        return losses.mean(axis=1)


@dataclass
class Run:
    """One method: its curve of (passes, validation loss), and its log."""

    passes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    log: list[tuple[int, float]] = field(default_factory=list)
    params: Any = None


Step = Callable[[Any, Any], Any]
"""`(state, batch) -> state`"""


def whole(contender: Contender, model: Model, start: Any) -> tuple[Any, Step, Any]:
    """State, step, and the params of a state, for a transformation."""
    opt = contender.optimizer
    watched = gradchain.observe(opt, "slopes") if replayable(opt) else opt

    @jax.jit
    def step(state: Any, batch: jax.Array) -> Any:
        params, inner = state
        grads, value_fn = None, partial(model.loss, batch=batch)
        if contender.takes == "stages":
            value_fn = model.staged(batch)
        if contender.takes == "gradient":
            grads = model.gradient_near_output(params, batch)
        updates, inner = watched.update(grads, inner, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), inner

    return (start, watched.init(start)), step, lambda state: state[0]


def block_by_block(contender: Contender, model: Model, start: Any) -> tuple[Any, Step, Any]:
    """State, step, and the params of a state, for zo2."""
    stepper = contender.optimizer

    def step(state: Any, batch: Any) -> Any:
        return stepper.step(state, model.blockwise, (batch[:, :-1], batch[:, 1:]))[0]

    state = stepper.init(jax.tree.map(jnp.copy, blocks_of(start)))
    return state, step, lambda state: params_of(stepper.flush(state))


def adapted(
    contender: Contender,
    model: Model,
    start: Any,
    code: np.ndarray,
    held_out: jax.Array,
    budget: int,
    run: Run,
) -> Iterator[None]:
    """Adapts until the passes are used up; yields whenever there is something new to show."""
    begin = block_by_block if contender.takes == "blocks" else whole
    state, step, params_at = begin(contender, model, start)
    validate = jax.jit(model.loss)
    random = np.random.default_rng(1)
    steps = budget // contender.passes
    for count in range(steps + 1):
        if count in (0, steps) or count % max(1, steps // 20) == 0:
            run.params = params_at(state)
            run.passes.append(count * contender.passes)
            run.losses.append(float(validate(run.params, held_out)))
            yield
        if count == steps:
            return
        state = step(state, windows(code, random, BATCH))
        if replayable(contender.optimizer):
            run.log.append((count + 1, gradchain.observed(state[1])["slopes"]))


def replayable(opt: Any) -> bool:
    """Whether it is MeZO, whose log the example keeps."""
    return repr(opt).startswith("mezo")


def table(runs: dict[str, Run]) -> Table:
    out = Table("method", title="validation loss on code, nats per character", box=None)
    for heading in ("passes", "start", "now", "gain"):
        out.add_column(heading, justify="right")
    for name, run in runs.items():
        if not run.losses:
            out.add_row(name, "", "", "", "")
            continue
        first, last = run.losses[0], run.losses[-1]
        out.add_row(name, f"{run.passes[-1]}", f"{first:.3f}", f"{last:.3f}", f"{first - last:.3f}")
    return out


def plot(runs: dict[str, Run], path: Path) -> None:
    """The curves, best on top in the legend."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    order = sorted(runs, key=lambda name: runs[name].losses[-1])
    for i, name in enumerate(order):
        run = runs[name]
        axes.plot(run.passes, run.losses, color=colours[i % 20], label=name)
    axes.set_xlabel("forward passes")
    axes.set_ylabel("validation loss on code, nats per character")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.suptitle(
        "From prose to code by forward passes (zo_hybrid: a backward pass near the output)",
        x=0.01,
        ha="left",
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write_log(run: Run, path: Path) -> None:
    path.write_bytes(b"".join(ENTRY.pack(count, float(slope)) for count, slope in run.log))


def rebuilt(opt: Any, start: Any, path: Path) -> Any:
    """The final params of a run from its log."""
    entries = list(ENTRY.iter_unpack(path.read_bytes()))
    counts, slopes = zip(*entries, strict=True)
    return replay(opt, start, counts, np.asarray(slopes, np.float32))


def equal(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(bool(jnp.array_equal(x, y)) for x, y in pairs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--passes", type=int, default=1200, help="forward passes of each method")
    parser.add_argument("--pretraining", type=int, default=400, help="steps of AdamW on prose")
    parser.add_argument("--out", type=Path, default=Path("runs/zeroth_order"))
    options = parser.parse_args(arguments)
    console = Console()
    prose, code, vocabulary = texts()
    model = Model(vocabulary)
    split = int(0.9 * len(code))
    held_out = jnp.asarray(windows(code[split:], np.random.default_rng(2), 64))
    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    console.print(f"{size:,} params; AdamW on {len(prose):,} characters of prose")
    start = pretrained(model.loss, model.params, prose, options.pretraining)
    runs = {name: Run() for name in options.methods or CONTENDERS}
    with Live(table(runs), console=console, auto_refresh=False) as live:
        for name, run in runs.items():
            contender = CONTENDERS[name]
            for _ in adapted(contender, model, start, code[:split], held_out, options.passes, run):
                live.update(table(runs), refresh=console.is_terminal)
            if not console.is_terminal:
                console.print(f"{name}: {run.losses[0]:.4f} -> {run.losses[-1]:.4f}")
    if not console.is_terminal:
        console.print(table(runs))
    options.out.mkdir(parents=True, exist_ok=True)
    plot(runs, options.out / "curves.png")
    results = {name: {"passes": run.passes, "losses": run.losses} for name, run in runs.items()}
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if "mezo" in runs:
        path = options.out / "mezo.log"
        write_log(runs["mezo"], path)
        same = equal(rebuilt(CONTENDERS["mezo"].optimizer, start, path), runs["mezo"].params)
        console.print(
            f"{path}: {path.stat().st_size} bytes; the weights rebuilt from it are "
            f"{'the same, to the bit' if same else 'DIFFERENT'}"
        )
    console.print(f"{options.out / 'results.json'}, {options.out / 'curves.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

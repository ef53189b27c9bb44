"""How much the base rate matters: methods that set their step size themselves, beside AdamW.

    python benchmarks/tuning_free.py --json found.json --plot found.png
    python benchmarks/tuning_free.py --methods adamw prodigy dog --tasks text --steps 100

Every method trains the CNN of the digits example and a small Transformer of the text example at
rates that span four decades around the catalogue's: a factor of 0.01 to 100 on what is given as its
rate, which for some is a factor on the step they find (Prodigy, DoG), for others the first rate
(SGD-HD) or a cap (MoMo); COCOB, which does not see the scale of gradients, takes its first steps so
many times as large. All runs of a task start at the same weights and see the same batches.
Losses are those of evaluation weights on held-out data; one above that of a uniform guess, or not
finite, counts as that of a uniform guess.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits_linen import CNN, digits
from flax import nnx
from gradchain import sweep
from gradchain.catalogue import METHODS
from text.data import load
from text.model import Transformer, cross_entropy

REFERENCE = "adamw"
METHOD_NAMES = (
    REFERENCE, "prodigy", "dadapt_adamw", "dadapt_sgd", "mechanize", "cocob", "dog", "l_dog",
    "dowg", "momo", "momo_adam", "polyak_momentum", "sania", "adam_hd", "sgd_hd",
)  # fmt: skip
OTHERS = {"polyak_momentum": ("max_learning_rate", 0.1, 1), "cocob": ("alpha", 20.0, -1)}
"""Where the base rate is a power of another argument: that, its middle, the exponent."""
CONTEXT, WINDOWS = 32, 64
NEAR = 0.9
"""A run is near tuned AdamW if it comes this share of its way down from a uniform guess."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
      init_params: key -> params.
      loss: (params, batch) -> mean loss in nats.
      batch: (key, step) -> batch.
      held_out: the batch that runs are judged by.
      guess: loss of a uniform guess.
      at_once: runs in one program; convolutions with a kernel per run are slow on a CPU.
    """

    init_params: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    batch: Callable[[jax.Array, jax.Array], Any]
    held_out: Any
    guess: float
    at_once: int | None = None


def digits_task() -> Task:
    """The CNN of `digits_linen.py`, batches of 64."""
    (images, labels), held_out = digits(0)
    model = CNN()

    def loss(params: Any, batch: Any) -> jax.Array:
        logits = model.apply({"params": params}, batch[0])
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    def batch(key: jax.Array, step: jax.Array) -> Any:
        chosen = jax.random.randint(jax.random.fold_in(key, step), (64,), 0, len(labels))
        return images[chosen], labels[chosen]

    def init_params(key: jax.Array) -> Any:
        return model.init(key, images[:1])["params"]

    return Task(init_params, loss, batch, held_out, math.log(10), at_once=1)


def text_task() -> Task:
    """The Transformer of `train_text.py`: width 32, one layer, batches of 8 windows."""
    text = load()
    vocabulary = len(text.characters)
    codes = jnp.asarray(text.train)

    def model(seed: int) -> Transformer:
        return Transformer(vocabulary, 32, 1, 2, nnx.Rngs(seed))

    graph = nnx.graphdef(model(0))

    def init_params(key: jax.Array) -> Any:
        made = Transformer(vocabulary, 32, 1, 2, nnx.Rngs(key))
        return nnx.as_pure(nnx.state(made))

    def loss(params: Any, windows: jax.Array) -> jax.Array:
        return cross_entropy(nnx.merge(graph, params)(windows[:, :-1]), windows[:, 1:])

    def batch(key: jax.Array, step: jax.Array) -> jax.Array:
        drawn = jax.random.fold_in(key, step)
        starts = jax.random.randint(drawn, (8,), 0, len(codes) - CONTEXT)
        return codes[starts[:, None] + jnp.arange(CONTEXT + 1)]

    held_out = jnp.asarray(text.validation_windows(WINDOWS, CONTEXT))
    return Task(init_params, loss, batch, held_out, math.log(vocabulary))


TASKS = {"digits": digits_task, "text": text_task}


def middle_of(name: str) -> float:
    """The base rate at a factor of 1."""
    rate = OTHERS[name][1] if name in OTHERS else METHODS[name].learning_rate
    assert rate is not None
    return rate


def build(name: str, factor: Any) -> Any:
    """The method with its base rate times a factor."""
    if name not in OTHERS:
        return METHODS[name].for_small_model(factor * middle_of(name))
    argument, middle, exponent = OTHERS[name]
    return METHODS[name].for_small_model(**{argument: middle * factor**exponent})


def losses_of(name: str, task: Task, factors: Sequence[float], steps: int) -> list[float]:
    """Held-out loss at each factor, in nats."""
    found = sweep(
        partial(build, name),
        {"factor": factors},
        task.init_params,
        task.loss,
        task.batch,
        steps=steps,
        evaluate=lambda params: task.loss(params, task.held_out),
        at_once=task.at_once,
        progress=False,
    )
    capped = np.where(np.isfinite(found.final), found.final, np.inf)[:, 0]
    return [float(x) for x in np.minimum(capped, task.guess)]


def summary(losses: Sequence[float], tuned: float, guess: float) -> dict[str, float]:
    """What a row of the table says."""
    near = guess - NEAR * (guess - tuned)
    return {
        "best": min(losses),
        "middle": losses[len(losses) // 2],
        "worst": max(losses),
        "spread": max(losses) - min(losses),
        "near": sum(loss <= near for loss in losses) / len(losses),
    }


def table(name: str, found: dict[str, Any]) -> str:
    """The rows of a task, in Markdown, by their share of rates near tuned AdamW."""
    rows = found["rows"]
    lines = [
        f"{name}: uniform guess {found['guess']:.3f}, tuned AdamW {found['tuned']:.3f}",
        "",
        "| method | best | at the catalogue's rate | worst | spread | near AdamW |",
        "|---|---|---|---|---|---|",
    ]
    for method, row in sorted(rows.items(), key=lambda item: (-item[1]["near"], item[1]["spread"])):
        figures = " | ".join(f"{row[key]:.3f}" for key in ("best", "middle", "worst", "spread"))
        count = round(row["near"] * len(found["factors"]))
        lines.append(f"| `{method}` | {figures} | {count} of {len(found['factors'])} |")
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Loss over the factor, a panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(results), figsize=(6.5 * len(results) + 2, 4.8), layout="constrained", squeeze=False
    )
    for axes, (name, found) in zip(panels[0], results.items(), strict=True):
        colours = plt.get_cmap("tab20")(np.linspace(0, 1, 20))
        for colour, (method, row) in zip(colours, found["rows"].items(), strict=False):
            own = {"color": "black", "linewidth": 2.5} if method == REFERENCE else {"color": colour}
            axes.plot(
                found["factors"], row["losses"], marker="o", markersize=3, label=method, **own
            )
        axes.axhline(found["tuned"], color="0.4", linestyle=":", label="tuned AdamW")
        axes.axhline(found["guess"], color="0.4", linestyle="--", label="uniform guess")
        axes.set(xscale="log", xlabel="factor on the base rate", title=name)
        axes.set_ylabel("held-out loss (nats)")
        axes.grid(alpha=0.25)
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize="small"
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=METHOD_NAMES, default=METHOD_NAMES)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--points", type=int, default=9, help="odd: factors from 0.01 to 100")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.points < 1 or options.points % 2 == 0:
        parser.error("--points is odd, so that the catalogue's rate is among them")
    factors = np.geomspace(1e-2, 1e2, options.points).tolist()
    names = [REFERENCE, *(name for name in options.methods if name != REFERENCE)]
    results: dict[str, Any] = {}
    for task_name in options.tasks:
        task = TASKS[task_name]()
        losses = {}
        for name in names:
            start = time.perf_counter()
            losses[name] = losses_of(name, task, factors, options.steps)
            shown = " ".join(f"{loss:.3f}" for loss in losses[name])
            seconds = time.perf_counter() - start
            print(f"{task_name} {name} ({seconds:.0f} s): {shown}", file=sys.stderr, flush=True)
        tuned = min(losses[REFERENCE])
        rows = {
            name: {
                "base_rate": middle_of(name),
                "losses": found,
                **summary(found, tuned, task.guess),
            }
            for name, found in losses.items()
        }
        results[task_name] = {
            "steps": options.steps,
            "factors": factors,
            "guess": task.guess,
            "tuned": tuned,
            "rows": rows,
        }
        print(table(task_name, results[task_name]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()

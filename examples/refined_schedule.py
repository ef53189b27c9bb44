"""Two runs of a small Transformer: the first records gradient norms, the second uses them.

    python examples/refined_schedule.py
    python examples/refined_schedule.py --schedule cosine_decay --batch-size 32 --plot refined.png
    python examples/refined_schedule.py --peak law

Both runs start at the same weights and see the same batches. The peak is 4e-3 at 16 windows a step,
scaled with the root of the batch size, or that of the step law, or a number; the second run's is
`--factor` times it.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# LAPACK's own threads fight with XLA's: factorisations take twenty times as long, or hang.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import optax
from command_line import USAGE_ERROR, Parser
from flax import nnx
from gradchain import eval_params
from gradchain.catalogue import get_schedule
from gradchain.optimizers import adamw
from gradchain.schedules import (
    as_schedule,
    batch_in_sequences,
    record_grad_norms,
    refined_schedule,
    scale_learning_rate,
    step_law,
)
from gradchain.training import nnx_value_fn
from rich.console import Console
from rich.progress import track
from text.data import Text, load
from text.model import Transformer, cross_entropy

TUNED_RATE, TUNED_BATCH = 4e-3, 16
EVALUATIONS, WINDOWS = 12, 64


@dataclass
class Found:
    """What a run leaves.

    Attributes:
      rates: learning rate of each step.
      norms: l1 norm of each step's gradient.
      train: loss of each step, before it.
      validation: pairs of step and loss.
    """

    rates: list[float]
    norms: list[float]
    train: list[float]
    validation: list[tuple[int, float]]


def parser() -> Parser:
    out = Parser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--schedule", default="wsd", metavar="NAME", help="of the first run")
    out.add_argument("--peak", default="scaled", help="scaled (default), law, or a number")
    out.add_argument(
        "--factor",
        type=float,
        default=1.0,
        help="on the second run's peak, which stays to be tuned",
    )
    out.add_argument("--steps", type=int, default=400, help="of each run (default 400)")
    out.add_argument("--batch-size", type=int, default=TUNED_BATCH, help="windows (default 16)")
    out.add_argument("--context", type=int, default=64, help="characters of a window (default 64)")
    out.add_argument("--width", type=int, default=32, help="of the Transformer (default 32)")
    out.add_argument("--smoothing", type=float, default=0.1, help="of the norms (default 0.1)")
    out.add_argument("--seed", type=int, default=0, help="of weights and batches")
    out.add_argument("--plot", type=Path, metavar="FILE", help="rates, norms and losses as a PNG")
    out.add_argument("--json", type=Path, metavar="FILE", help="the same as numbers")
    return out


def peak_of(options: argparse.Namespace, model: Transformer, console: Console) -> float:
    """The rate that was asked for; the two laws are shown either way."""
    sizes = {name: sum(x.size for x in jax.tree.leaves(nnx.state(getattr(model, name))))
             for name in ("embed", "blocks", "norm", "head")}  # fmt: skip
    tokens = options.steps * options.batch_size * options.context
    law = step_law(n_params=sum(sizes.values()) - sizes["embed"], n_tokens=tokens)
    scaled = scale_learning_rate(TUNED_RATE, options.batch_size, TUNED_BATCH, rule="sqrt")
    windows = batch_in_sequences(law.batch_size_tokens, options.context)
    console.print(
        f"peak {float(scaled):.2e} scaled to {options.batch_size} windows; the step law, fitted to "
        f"models a thousand times as large, says {float(law.learning_rate):.2e} at "
        f"{float(windows):.0f} windows for {tokens:,} characters",
        soft_wrap=True,
    )
    named = {"scaled": scaled, "law": law.learning_rate}
    return float(named.get(options.peak, options.peak))


def train(
    schedule: optax.Schedule,
    model: Transformer,
    text: Text,
    options: argparse.Namespace,
    console: Console,
    name: str,
) -> Found:
    """A run of AdamW from the model's weights, which stay as they are."""
    recorder = record_grad_norms(options.steps, ord=1)
    optimizer = optax.chain(recorder, adamw(schedule))
    params: Any = nnx.as_pure(nnx.state(model))

    def loss_of(params: Any, windows: Any) -> jax.Array:
        def loss(model: Transformer) -> jax.Array:
            return cross_entropy(model(windows[:, :-1]), windows[:, 1:])

        return nnx_value_fn(model, loss)(params)

    @jax.jit
    def step(params: Any, state: Any, windows: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, windows)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    judge = jax.jit(loss_of)
    held_out = jnp.asarray(text.validation_windows(WINDOWS, options.context))
    state = optimizer.init(params)
    losses, validation = [], []
    every = max(options.steps // EVALUATIONS, 1)
    hidden = not console.is_terminal
    for t in track(range(options.steps), name, console=console, transient=True, disable=hidden):
        batch = text.batch(t, options.batch_size, options.context, options.seed)
        params, state, loss = step(params, state, batch)
        losses.append(loss)
        if (t + 1) % every == 0 or t + 1 == options.steps:
            validation.append((t + 1, float(judge(eval_params(state, params), held_out))))
    rates = [float(schedule(t)) for t in range(options.steps)]
    return Found(rates, state[0].norms.tolist(), [float(loss) for loss in losses], validation)


def plot(runs: dict[str, Found], path: Path) -> None:
    """Rates, gradient norms and losses over the steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (rates, norms, losses) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for (name, found), colour in zip(runs.items(), ("#0072B2", "#D55E00"), strict=True):
        rates.plot(found.rates, color=colour, label=name)
        norms.plot(found.norms, color=colour, linewidth=0.7, label=name)
        losses.plot(found.train, color=colour, linewidth=0.6, alpha=0.3)
        final = f"{name}  {found.validation[-1][1]:.3f}"
        losses.plot(*zip(*found.validation, strict=True), color=colour, marker="o", label=final)
    rates.set(ylabel="learning rate")
    norms.set(ylabel="l1 norm of the gradient", yscale="log")
    losses.set(ylabel="loss (nats per character)", title="validation (dots), training (faint)")
    for axes in (rates, norms, losses):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console, text = Console(), load()
    try:
        if min(options.steps, options.batch_size, options.context, options.width) < 2:
            raise ValueError("--steps, --batch-size, --context and --width must be at least 2")
        build = get_schedule(options.schedule).build
        if build is None:
            raise ValueError(f"--schedule {options.schedule} needs more than a peak and a length")
        model = Transformer(len(text.characters), options.width, 1, 2, nnx.Rngs(options.seed))
        peak = peak_of(options, model, console)
        if not 0 < peak < float("inf"):
            raise ValueError(f"--peak {options.peak} is no rate")
        first = train(build(peak, options.steps), model, text, options, console, options.schedule)
        refined = refined_schedule(first.norms, "adam", options.smoothing, options.factor * peak)
    except ValueError as error:
        print(f"refined_schedule: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    second = train(as_schedule(refined), model, text, options, console, "refined")
    runs = {options.schedule: first, "refined": second}
    for name, found in runs.items():
        highest = max(range(options.steps), key=found.rates.__getitem__)
        console.print(
            f"{name}: validation loss {found.validation[-1][1]:.4f}, highest rate at step {highest}"
        )
    if options.json:
        kept = {name: asdict(found) for name, found in runs.items()}
        options.json.write_text(json.dumps({"peak": peak, "runs": kept}, indent=1) + "\n")
    if options.plot:
        plot(runs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

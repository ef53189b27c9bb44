"""The class tree of Python's standard library, embedded in the Poincare disk.

    python examples/poincare_embedding.py --plot disk.png

Every exception, collection, stream, syntax-tree node, ... that a set of standard modules defines is
a point; a class and its bases are to be near each other, farther from others. Hyperbolic space has
room for trees: general classes go to the middle, special ones to the rim.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradchain import optimizers
from gradchain.transforms.manifolds import poincare_ball
from rich.console import Console
from rich.table import Table

MODULES = ("builtins", "collections", "collections.abc", "io", "ast", "socketserver", "ctypes")
BALL = poincare_ball()
METHODS = {
    "rsgd": lambda rate: optimizers.rsgd(10 * rate, BALL),
    "riemannian_adam": lambda rate: optimizers.riemannian_adam(rate, BALL),
    "riemannian_amsgrad": lambda rate: optimizers.riemannian_amsgrad(rate, BALL),
    "riemannian_adagrad": lambda rate: optimizers.riemannian_adagrad(10 * rate, BALL),
}


def class_tree() -> tuple[list[type], Any]:
    """The classes, and the pairs (class, ancestor) among them."""
    classes = {
        value
        for name in MODULES
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and value is not object
    }
    rows = sorted(classes, key=lambda c: (c.__module__, c.__qualname__))
    number = {c: i for i, c in enumerate(rows)}
    pairs = [(number[c], number[a]) for c in rows for a in c.__mro__[1:] if a in number]
    related = {i for pair in pairs for i in pair}
    kept = [i for i in range(len(rows)) if i in related]
    again = {old: new for new, old in enumerate(kept)}
    return [rows[i] for i in kept], np.array([(again[a], again[b]) for a, b in pairs])


def loss(points: Any, pairs: Any, strangers: Any) -> Any:
    """Cross entropy of picking the ancestor among strangers, nearer ones more likely."""
    child, others = points[pairs[:, :1]], jnp.concatenate([pairs[:, 1:], strangers], axis=1)
    gaps = BALL.between(jnp.broadcast_to(child, (*others.shape, child.shape[-1])), points[others])
    return -jnp.mean(jax.nn.log_softmax(-gaps, axis=1)[:, 0])


@partial(jax.jit, static_argnums=(0, 4))
def train(opt: optax.GradientTransformation, points: Any, pairs: Any, key: Any, steps: int) -> Any:
    """The points after training, and the losses."""

    def step(carry: Any, key: Any) -> Any:
        x, state = carry
        strangers = jax.random.randint(key, (len(pairs), 10), 0, len(x))
        value, g = jax.value_and_grad(loss)(x, pairs, strangers)
        updates, state = opt.update(g, state, x)
        return (optax.apply_updates(x, updates), state), value

    keys = jax.random.split(key, steps)
    (x, _), losses = jax.lax.scan(step, (points, opt.init(points)), keys)
    return x, losses


def mean_average_precision(points: Any, pairs: Any) -> float:
    """How well relatives come first among the neighbours of each class, at best 1."""
    gaps = np.array(BALL.between(points[:, None], points[None]))
    np.fill_diagonal(gaps, np.inf)
    scores = []
    for child in np.unique(pairs[:, 0]):
        wanted = np.isin(np.argsort(gaps[child]), pairs[pairs[:, 0] == child, 1])
        ranks = np.flatnonzero(wanted) + 1
        scores.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(scores))


def plot(points: Any, classes: list[type], pairs: Any, losses: Any, path: Path) -> None:
    """The disk, and the losses of the methods, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (disk, curves) = plt.subplots(
        1, 2, figsize=(15, 9), width_ratios=(2, 1), layout="constrained"
    )
    xy = np.asarray(points)
    for child, ancestor in pairs:
        if classes[ancestor] in classes[child].__bases__:
            disk.plot(*xy[[child, ancestor]].T, color="0.8", linewidth=0.6, zorder=1)
    modules = sorted({c.__module__.lstrip("_") for c in classes})
    for module in modules:
        rows = [i for i, c in enumerate(classes) if c.__module__.lstrip("_") == module]
        disk.scatter(*xy[rows].T, s=12, label=module, zorder=2)
    offspring = np.bincount(pairs[:, 1], minlength=len(classes))
    for i in np.argsort(-offspring)[:16]:
        disk.annotate(classes[i].__name__, xy[i], fontsize=9, zorder=3)
    disk.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.4"))
    disk.set(
        aspect="equal", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), title="classes and their bases"
    )
    disk.axis("off")
    disk.legend(frameon=False, fontsize=8, loc="lower left")
    for name, values in losses.items():
        curves.plot(values, label=name, linewidth=1)
    curves.set(xlabel="step", ylabel="loss (nats)")
    curves.legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--steps", type=int, default=1500, metavar="N", help="default 1500")
    out.add_argument("--learning-rate", type=float, default=0.03, metavar="RATE", help="of Adam")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of start and strangers")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="leave the disk here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    classes, pairs = class_tree()
    start_key, key = jax.random.split(jax.random.key(options.seed))
    start = 0.1 * BALL.random(start_key, (len(classes), 2))
    table = Table("method", "first loss", "last loss", "mean average precision")
    points, curves = {}, {}
    for name, make in METHODS.items():
        opt = make(options.learning_rate)
        points[name], losses = train(opt, start, jnp.asarray(pairs), key, options.steps)
        curves[name] = np.asarray(losses)
        precision = mean_average_precision(points[name], pairs)
        table.add_row(
            name, f"{losses[0]:.3f}", f"{curves[name][-20:].mean():.3f}", f"{precision:.3f}"
        )
    console.print(f"{len(classes)} classes, {len(pairs)} pairs of class and ancestor")
    console.print(table)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(points["riemannian_adam"], classes, pairs, curves, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

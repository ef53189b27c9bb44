"""Three tasks on scikit-learn's digits at once: which digit, is it odd, and draw it again.

    python examples/multi_task_digits.py --plot tasks.png

A shared trunk with three heads. The plain way trains on the sum of the losses; the aggregators take
the trunk's gradient of each loss and make one direction of them. Heads have no conflict: each is
trained on its own loss.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from gradchain import chain, objective_gradients, optimizers
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TASKS = ("digit", "parity", "drawing")
RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "plain sum": lambda: optimizers.weighted_sum((1.0, 1.0, 1.0)),
    "random_weighting": optimizers.random_weighting,
    "graddrop": optimizers.graddrop,
    "upgrad": optimizers.upgrad,
    "dualproj": optimizers.dualproj,
    "mgda": optimizers.mgda,
    "pcgrad": optimizers.pcgrad,
    "cagrad": optimizers.cagrad,
    "imtl_g": optimizers.imtl_g,
    "nash_mtl": optimizers.nash_mtl,
    "aligned_mtl": optimizers.aligned_mtl,
    "config": optimizers.config,
}


class Model(nn.Module):
    """A trunk of two layers, narrow enough for the tasks to compete, and three heads."""

    width: int = 12

    @nn.compact
    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        features = nn.relu(nn.Dense(32, name="trunk_0")(images))
        features = nn.relu(nn.Dense(self.width, name="trunk_1")(features))
        return {
            "digit": nn.Dense(10, name="digit")(features),
            "parity": nn.Dense(1, name="parity")(features)[:, 0],
            "drawing": nn.Dense(64, name="drawing")(features),
        }


def digits(seed: int) -> tuple[Any, Any]:
    """Training and test part: images of 64 pixels in [0, 1], and labels."""
    data = load_digits()
    images = (data.images / 16.0).reshape(-1, 64).astype(np.float32)
    parts = train_test_split(
        images, data.target.astype(np.int32), test_size=0.25, random_state=seed
    )
    train_images, test_images, train_labels, test_labels = map(jnp.asarray, parts)
    return (train_images, train_labels), (test_images, test_labels)


def losses(params: Any, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """One loss per task, each in units of what guessing costs, so that all start near 1."""
    out = Model().apply({"params": params}, images)
    digit = optax.softmax_cross_entropy_with_integer_labels(out["digit"], labels)
    parity = optax.sigmoid_binary_cross_entropy(out["parity"], labels % 2)
    drawing = jnp.mean((out["drawing"] - images) ** 2, axis=1) / jnp.mean(jnp.var(images, axis=0))
    return {
        "digit": jnp.mean(digit) / np.log(10),
        "parity": jnp.mean(parity) / np.log(2),
        "drawing": jnp.mean(drawing),
    }


def shared(params: Any) -> Any:
    """Which leaves all tasks use: those of the trunk."""
    return {name: name.startswith("trunk") for name in params}


def train(rule: Any, data: Any, rate: float, steps: int, seed: int) -> tuple[Any, Any]:
    """The params, and the losses of the tasks at every step."""
    images, labels = data
    params = Model().init(jax.random.key(seed), images[:1])["params"]
    labels_of = jax.tree.map(str, shared(params))
    opt = optax.partition(
        {"True": chain(rule, optimizers.adam(rate)), "False": optimizers.adam(rate)}, labels_of
    )

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        rows = jax.random.randint(key, (64,), 0, len(images))
        batch = images[rows], labels[rows]
        found, grads = objective_gradients(lambda p: losses(p, *batch), params, shared=shared)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), found

    @jax.jit
    def run(params: Any) -> Any:
        keys = jax.random.split(jax.random.key(seed + 1), steps)
        (last, _), curve = jax.lax.scan(step, (params, opt.init(params)), keys)
        return last, curve

    return run(params)


@partial(jax.jit)
def accuracies(params: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
    """Shares of right digits and of right parities."""
    out = Model().apply({"params": params}, images)
    return (
        jnp.mean(jnp.argmax(out["digit"], axis=-1) == labels),
        jnp.mean((out["parity"] > 0) == (labels % 2 == 1)),
    )


def plot(curves: dict[str, Any], path: Path) -> None:
    """Smoothed training losses of the tasks, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(TASKS), figsize=(14, 4.5), layout="constrained")
    for axes, task in zip(panels, TASKS, strict=True):
        axes.set_prop_cycle(color=plt.colormaps["tab20"].colors)
        for name, curve in curves.items():
            values = np.asarray(curve[task])
            window = max(1, len(values) // 30)
            smooth = np.convolve(values, np.ones(window) / window, mode="valid")
            style = {"color": "k", "linewidth": 2} if name == "plain sum" else {"linewidth": 1}
            axes.semilogy(np.arange(len(smooth)) + window, smooth, label=name, **style)
        axes.set(title=task, xlabel="step", ylabel="loss (1: guessing)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES), metavar="NAME")
    out.add_argument("--steps", type=int, default=1500, metavar="N", help="default 1500")
    out.add_argument("--learning-rate", type=float, default=3e-3, metavar="RATE", help="of Adam")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of split, weights, batches")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="also leave the curves here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    train_part, test_part = digits(options.seed)
    table = Table("rule", *(f"{task}, test loss" for task in TASKS), "digits right", "parity right")
    curves = {}
    for name in options.rules:
        params, curves[name] = train(
            RULES[name](), train_part, options.learning_rate, options.steps, options.seed
        )
        tested = losses(params, *test_part)
        shares = accuracies(params, *test_part)
        table.add_row(
            name, *(f"{tested[task]:.3f}" for task in TASKS), *(f"{share:.1%}" for share in shares)
        )
    console.print(table)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(curves, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

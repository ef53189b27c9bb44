"""A small CNN in Flax linen on scikit-learn's digits, with any optimizer of the catalogue.

    python examples/digits_linen.py
    python examples/digits_linen.py --optimizer lion --learning-rate 3e-4 --plot digits.png

`gradchain.training.TrainState` is Flax's, except that `apply_gradients` passes the loss and the
loss function on to methods that ask for them.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

# LAPACK's own threads fight with XLA's: factorisations take twenty times as long, or hang.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from command_line import USAGE_ERROR, Parser
from flax import linen as nn
from gradchain.catalogue import get_method, get_schedule
from gradchain.training import TrainState
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PROVIDED = ("params", "value", "value_fn", "logits_fn")

Batch = tuple[jax.Array, jax.Array]


class CNN(nn.Module):
    """Two convolutions and two dense layers for 8 x 8 images."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(16, (3, 3))(images))
        x = nn.relu(nn.Conv(32, (3, 3), strides=(2, 2))(x))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


def digits(seed: int) -> tuple[Batch, Batch]:
    """Training and test part: images in [0, 1] of shape (count, 8, 8, 1), and labels."""
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[..., None]
    labels = data.target.astype(np.int32)
    parts = train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels)
    train_images, test_images, train_labels, test_labels = map(jnp.asarray, parts)
    return (train_images, train_labels), (test_images, test_labels)


@partial(jax.jit, static_argnames="needs", donate_argnames="state")
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array, needs: tuple[str, ...]
) -> tuple[TrainState, jax.Array]:
    """One step; returns the new state and the loss before it."""

    def logits_fn(params: Any) -> jax.Array:
        return state.apply_fn({"params": params}, images)

    def value_fn(params: Any) -> jax.Array:
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits_fn(params), labels)
        return losses.mean()

    value, grads = jax.value_and_grad(value_fn)(state.params)
    made = {"value": value, "value_fn": value_fn, "logits_fn": logits_fn}
    extra = {name: made[name] for name in needs if name in made}
    return state.apply_gradients(grads=grads, **extra), value


@jax.jit
def accuracy(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of right answers of the evaluation weights."""
    params = gradchain.eval_params(state.opt_state, state.params)
    return jnp.mean(state.apply_fn({"params": params}, images).argmax(axis=-1) == labels)


def train(
    optimizer: optax.GradientTransformation,
    train_part: Batch,
    test_part: Batch,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    console: Console,
) -> tuple[list[float], list[float]]:
    """Losses of all steps and test accuracies after all epochs.

    Raises:
      ValueError: the optimizer needs an input that this loop does not have.
    """
    needs = tuple(gradchain.needs(optimizer))
    missing = sorted(set(needs) - set(PROVIDED))
    if missing:
        raise ValueError(f"it needs {', '.join(missing)}, which this example cannot give it")
    images, labels = train_part
    model = CNN()
    params = model.init(jax.random.key(seed), images[:1])["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)
    random = np.random.default_rng(seed)
    losses, accuracies = [], []
    epochs_shown = track(
        range(epochs), "training", console=console, transient=True, disable=not console.is_terminal
    )
    for _ in epochs_shown:
        # The last, smaller batch is dropped: its shape would cost another compilation.
        order = random.permutation(len(images))[: len(images) // batch_size * batch_size]
        for chosen in order.reshape(-1, batch_size):
            # Digits a pixel off centre are the same digits; without them 97 % is hard to pass.
            shifted = jnp.roll(images[chosen], random.integers(-1, 2, 2), axis=(1, 2))
            state, loss = train_step(state, shifted, labels[chosen], needs)
            losses.append(loss)
        accuracies.append(float(accuracy(state, *test_part)))
    return [float(loss) for loss in losses], accuracies


def plot(losses: list[float], accuracies: list[float], title: str, path: Path) -> None:
    """Loss and test accuracy as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.semilogy(range(1, len(losses) + 1), losses, linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss (nats)")
    right.plot(range(1, len(accuracies) + 1), [100 * share for share in accuracies], marker="o")
    right.axhline(97, color="0.4", linestyle="--", linewidth=1, label="97 %")
    right.set(xlabel="epoch", ylabel="test accuracy (%)")
    right.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parser() -> Parser:
    out = Parser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--optimizer", default="adamw", metavar="NAME", help="default adamw")
    out.add_argument("--learning-rate", type=float, metavar="RATE", help="default the catalogue's")
    out.add_argument("--schedule", metavar="NAME", help="default none: a constant rate")
    out.add_argument("--epochs", type=int, default=30, metavar="N", help="default 30")
    out.add_argument("--batch-size", type=int, default=64, metavar="N", help="default 64")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of split, weights, batches")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="also leave the curves here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    train_part, test_part = digits(options.seed)
    try:
        if not (options.epochs > 0 and 0 < options.batch_size <= len(train_part[0])):
            raise ValueError("--epochs and --batch-size must be positive, a batch fit the data")
        method = get_method(options.optimizer)
        rate: Any = options.learning_rate or method.learning_rate
        if options.schedule is not None:
            build = get_schedule(options.schedule).build
            if build is None or rate is None:
                raise ValueError(f"schedule {options.schedule!r} cannot be used here")
            rate = build(rate, options.epochs * (len(train_part[0]) // options.batch_size))
        losses, accuracies = train(
            method.for_small_model(rate),
            train_part,
            test_part,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            console=console,
        )
    except ValueError as error:
        print(f"digits_linen: error: {options.optimizer}: {error}", file=sys.stderr)
        return USAGE_ERROR
    console.print(
        f"{options.optimizer}: test accuracy {accuracies[-1]:.2%} "
        f"on {len(test_part[0])} digits after {options.epochs} epochs"
    )
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        title = f"Digits, {options.optimizer}: test accuracy {accuracies[-1]:.2%}"
        plot(losses, accuracies, title, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

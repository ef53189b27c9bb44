"""Kronecker curvature of a small CNN on scikit-learn's digits: MKOR and K-FAC beside momentum.

    python examples/layer_curvature.py
    python examples/layer_curvature.py --epochs 10 --seed 1

`gradchain.layers` reads the inputs and cotangents of every layer off the model as it is; the
optimizers take them as extra arguments of `update`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

# LAPACK's own threads fight with XLA's: factorisations take twenty times as long, or hang.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from gradchain.layers import nnx_layer_gradients
from rich.console import Console
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

OPTIMIZERS = {
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "mkor": lambda: gradchain.optimizers.mkor(0.05),
    "k_fac": lambda: gradchain.optimizers.k_fac(0.05, damping=0.1, update_interval=5),
}


class CNN(nnx.Module):
    """A convolution and two dense layers for 8 x 8 images."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 12, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(192, 48, rngs=rngs)
        self.head = nnx.Linear(48, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.conv(images))
        return self.head(nnx.relu(self.dense(x.reshape(len(x), -1))))


def digits(seed: int) -> tuple[jax.Array, ...]:
    """Training images, test images, training labels, test labels."""
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[..., None]
    parts = train_test_split(
        images, data.target, test_size=0.25, random_state=seed, stratify=data.target
    )
    return tuple(jnp.asarray(part) for part in parts)


@nnx.jit
def train_step(model: CNN, optimizer: nnx.Optimizer, images: Any, labels: Any) -> jax.Array:
    """One step; returns the loss before it."""

    def loss(model: CNN) -> jax.Array:
        return optax.losses.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    found = nnx_layer_gradients(model, loss)
    optimizer.update(model, found.grads, **found.extra)
    return found.value


@nnx.jit
def accuracy(model: CNN, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of right answers."""
    return jnp.mean(model(images).argmax(axis=-1) == labels)


def train(
    transformation: optax.GradientTransformation,
    parts: tuple[jax.Array, ...],
    epochs: int,
    seed: int,
    advance: Any,
    batch_size: int = 64,
) -> list[float]:
    """The test accuracy after every epoch."""
    images, test_images, labels, test_labels = parts
    model = CNN(nnx.Rngs(seed))
    # Optimizers that want no layer data ignore it once they accept extra arguments.
    optimizer = nnx.Optimizer(model, optax.with_extra_args_support(transformation), wrt=nnx.Param)
    random = np.random.default_rng(seed)
    accuracies = []
    for _ in range(epochs):
        order = random.permutation(len(images))[: len(images) // batch_size * batch_size]
        for chosen in order.reshape(-1, batch_size):
            train_step(model, optimizer, images[chosen], labels[chosen])
        accuracies.append(float(accuracy(model, test_images, test_labels)))
        advance()
    return accuracies


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of split and weights")
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, not {options.epochs}")
    console = Console()
    parts = digits(options.seed)
    results = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for name, make in OPTIMIZERS.items():
            task = progress.add_task(name, total=options.epochs)
            results[name] = train(
                make(),
                parts,
                options.epochs,
                options.seed,
                lambda task=task: progress.advance(task),
            )
    for name, accuracies in results.items():
        shown = "  ".join(f"{share:6.2%}" for share in accuracies)
        console.print(f"{name:<9} test accuracy after each epoch: {shown}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Scikit-learn's digits, learned such that no single one of them shows: epsilon beside accuracy.

    pip install 'gradchain[examples,private]'
    python examples/private_digits.py --noise 0.6 1 2 4

Every step takes each training image with the same small probability, clips the gradient of each
by itself, and adds noise to their sum; Adam sees that alone. The more noise, the smaller epsilon,
the less anybody can tell from the weights whether a given image was among the training ones.
Epsilon is that of dp-accounting; `--no-budget` does without it.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from gradchain import chain, optimizers
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

USAGE_ERROR = 2
CHUNK = 32


class Model(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.tanh(nn.Dense(32)(images)))


def digits(seed: int) -> tuple[Any, Any]:
    """Training and test part: images of 64 pixels in [0, 1], and labels."""
    data = load_digits()
    images = (data.images / 16.0).reshape(-1, 64).astype(np.float32)
    labels = data.target.astype(np.int32)
    parts = train_test_split(images, labels, test_size=0.25, random_state=seed)
    train_images, test_images, train_labels, test_labels = map(jnp.asarray, parts)
    return (train_images, train_labels), (test_images, test_labels)


def loss(params: Any, example: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Of one image."""
    image, label = example
    logits = Model().apply({"params": params}, image)
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def trainer(data: Any, options: argparse.Namespace) -> Callable[[float], Any]:
    """From the noise to the params after all steps, compiled once."""
    images, labels = data
    rate = options.batch_size / len(images)
    # eight deviations above what is expected: more are drawn about once in 1e14 steps
    most = min(len(images), math.ceil(options.batch_size + 8 * options.batch_size**0.5))
    root = jax.random.key(options.seed + 1)

    def train(noise: Any) -> Any:
        opt = chain(
            optimizers.add_private_noise(options.clip, noise, options.batch_size, key=options.seed),
            optimizers.adam(options.learning_rate),
        )

        def step(carry: Any, t: Any) -> Any:
            params, state = carry
            key = jax.random.fold_in(root, t)
            rows, present = optimizers.poisson_sample(key, len(images), rate, most)
            total = optimizers.clipped_gradient_sum(
                loss, params, (images[rows], labels[rows]), options.clip, CHUNK, present
            )
            updates, state = opt.update(total, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = Model().init(root, images[:1])["params"]
        return jax.lax.scan(step, (params, opt.init(params)), jnp.arange(options.steps))[0][0]

    return jax.jit(train)


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """What dp-accounting finds for steps on Poisson samples with Gaussian noise."""
    import dp_accounting

    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant = dp_accounting.pld.PLDAccountant()
    return float(accountant.compose(event, steps).get_epsilon(delta))


def accuracy(params: Any, images: jax.Array, labels: jax.Array) -> float:
    logits = Model().apply({"params": params}, images)
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == labels))


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument(
        "--noise", nargs="+", type=float, default=[0.6, 1.0, 2.0, 4.0], metavar="SIGMA",
        help="noise multipliers, in units of the clip (default 0.6 1 2 4)",
    )  # fmt: skip
    out.add_argument("--clip", type=float, default=1.0, metavar="C", help="norm of a gradient")
    out.add_argument("--steps", type=int, default=600, metavar="N", help="default 600")
    out.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="expected number of images"
    )
    out.add_argument("--learning-rate", type=float, default=0.01, metavar="RATE", help="of Adam")
    out.add_argument("--delta", type=float, default=1e-4, help="of (epsilon, delta)")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of split, weights, noise")
    out.add_argument("--no-budget", action="store_true", help="train without dp-accounting")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        check(options)
    except ValueError as error:
        print(f"private_digits: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    train_part, test_part = digits(options.seed)
    rate = options.batch_size / len(train_part[0])
    train = trainer(train_part, options)
    table = Table("noise", f"epsilon at delta {options.delta:g}", "right, training", "right, test")
    for noise in options.noise:
        params = train(noise)
        if options.no_budget:
            spent = "not computed"
        else:
            spent = f"{epsilon(noise, rate, options.steps, options.delta):.2f}" if noise else "∞"
        shares = (f"{accuracy(params, *part):.1%}" for part in (train_part, test_part))
        table.add_row(f"{noise:g}", spent, *shares)
    Console().print(table)
    return 0


def check(options: argparse.Namespace) -> None:
    """Refuses what cannot run, before anything is trained."""
    if min(options.noise) < 0:
        raise ValueError(f"--noise {min(options.noise):g} must be at least 0")
    if not options.no_budget:
        try:
            import dp_accounting  # noqa: F401
        except ImportError:
            raise ValueError(
                "epsilon is computed by the package dp-accounting, which is not installed: "
                "pip install 'gradchain[private]', or train without it by --no-budget"
            ) from None


if __name__ == "__main__":
    sys.exit(main())

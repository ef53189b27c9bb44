"""Learning rates, weight decays and seeds of one method on scikit-learn's digits, in one program.

    python examples/sweep_digits.py
    python examples/sweep_digits.py --optimizer lion --rates 1e-5 1e-2 --points 13 --plot valley.png

Rates lie between two ends on a logarithmic scale; the error on the test images is what is compared.
"""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from command_line import Parser
from gradchain import sweep
from gradchain.catalogue import METHODS, get_method
from sklearn.datasets import load_digits

HIDDEN, BATCH = 32, 64


def init_params(key: jax.Array) -> Any:
    """Two dense layers for 64 pixels and ten digits."""
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "kernel": jax.random.normal(first, (64, HIDDEN)) / 8,
            "bias": jnp.zeros(HIDDEN),
        },
        "out": {
            "kernel": jax.random.normal(second, (HIDDEN, 10)) / HIDDEN**0.5,
            "bias": jnp.zeros(10),
        },
    }


def logits_of(params: Any, images: Any) -> Any:
    hidden = jax.nn.relu(images @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def loss_of(params: Any, batch: Any) -> Any:
    images, labels = batch
    logits = logits_of(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def parser() -> Parser:
    out = Parser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--optimizer", default="adamw", metavar="NAME")
    out.add_argument("--rates", type=float, nargs=2, default=(1e-4, 1.0), metavar="RATE")
    out.add_argument("--points", type=int, default=9, help="rates between these, ends included")
    out.add_argument("--decays", type=float, nargs="+", default=[0.0, 0.1], metavar="DECAY")
    out.add_argument("--seeds", type=int, default=3)
    out.add_argument("--steps", type=int, default=300)
    out.add_argument("--plot", type=Path, metavar="FILE")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser()
    given = options.parse_args(arguments)
    if given.optimizer not in METHODS:
        options.error(f"unknown optimizer {given.optimizer!r}")
    method = get_method(given.optimizer)
    low, high = given.rates
    if not 0 < low <= high or min(given.points, given.seeds, given.steps) < 1:
        options.error("rates are positive, the lower one first; counts are at least 1")
    data = load_digits()
    images = jnp.asarray(data.images.reshape(-1, 64) / 16.0, jnp.float32)
    labels = jnp.asarray(data.target, jnp.int32)
    held_out = len(labels) // 4

    def batch(key: jax.Array, step: jax.Array) -> Any:
        chosen = jax.random.randint(jax.random.fold_in(key, step), (BATCH,), held_out, len(labels))
        return images[chosen], labels[chosen]

    def error(params: Any) -> Any:
        found = logits_of(params, images[:held_out]).argmax(-1)
        return jnp.mean(found != labels[:held_out], dtype=jnp.float32)

    settings = {"learning_rate": np.geomspace(low, high, given.points).tolist()}
    if "weight_decay" in inspect.signature(method.factory).parameters:
        settings["weight_decay"] = given.decays
    try:
        found = sweep(
            method.for_small_model,
            settings,
            init_params,
            loss_of,
            batch,
            steps=given.steps,
            seeds=range(given.seeds),
            evaluate=error,
        )
    except ValueError as refusal:
        options.error(str(refusal).partition("\n")[0])
    print(found)
    best = ", ".join(f"{name} {value:.3g}" for name, value in found.best.items())
    print(f"best of {found.final.size} runs: {best}, {100 * found.mean.min():.1f}% wrong")
    if given.plot:
        given.plot.parent.mkdir(parents=True, exist_ok=True)
        found.plot(given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

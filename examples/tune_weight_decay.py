"""Learns a weight decay for each layer, on scikit-learn's digits with a validation part.

    python examples/tune_weight_decay.py --plot decay.png

The lower level trains a network on few images, some of which have a wrong label, with a decay for
each layer; the upper level moves the decays down the loss on the validation part, at what the
training has come to. Every bilevel method of the library does so, from the same start, beside
training with the decays as they were.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from gradchain import optimizers
from gradchain.optimizers import BilevelStepper as Stepper
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

STEPS_BELOW = 20
"""Gradient steps of the lower level in one step, where a method lets us choose."""

Losses = tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]


class Model(nn.Module):
    """64 -> 32 -> 10."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(10, name="output")(nn.tanh(nn.Dense(32, name="hidden")(images)))


class Part(NamedTuple):
    """Images of 64 pixels in [0, 1], and labels."""

    images: jax.Array
    labels: jax.Array

    def loss(self, params: Any) -> jax.Array:
        logits = Model().apply({"params": params}, self.images)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, self.labels))

    def accuracy(self, params: Any) -> jax.Array:
        logits = Model().apply({"params": params}, self.images)
        return jnp.mean(jnp.argmax(logits, axis=-1) == self.labels)


class Digits(NamedTuple):
    train: Part
    validation: Part
    test: Part


def digits(examples: int, noise: float, seed: int) -> Digits:
    """As many images to train as to validate, all others test; some labels to train are wrong."""
    data = load_digits()
    images, labels = (data.data / 16.0).astype(np.float32), data.target.astype(np.int32)

    def cut(part: Sequence[Any], size: int) -> tuple[Any, Any]:
        a, b, c, d = train_test_split(*part, train_size=size, stratify=part[1], random_state=seed)
        return (a, c), (b, d)

    train, rest = cut((images, labels), examples)
    random = np.random.default_rng(seed)
    wrong = random.random(examples) < noise
    train = train[0], np.where(wrong, random.integers(10, size=examples), train[1]).astype(np.int32)
    validation, test = cut(rest, examples)
    return Digits(*(Part(*map(jnp.asarray, part)) for part in (train, validation, test)))


def losses(data: Digits, decay: float) -> Losses:
    """(upper, lower) in the exponents of the decays and the params."""

    def upper(exponents: Any, params: Any) -> jax.Array:
        return data.validation.loss(params)

    def lower(exponents: Any, params: Any) -> jax.Array:
        kernels = {name: layer["kernel"] for name, layer in params.items()}
        penalties = jax.tree.map(lambda x, w: jnp.exp(x) * jnp.sum(w**2), exponents, kernels)
        return data.train.loss(params) + decay / 2 * sum(jax.tree.leaves(penalties))

    return upper, lower


def by_implicit_hypergradient(rate: float, upper_rate: float) -> Stepper:
    """The function in a loop of one's own: gradient steps, then its result to an optimizer."""
    upper_opt = optimizers.adam(upper_rate)

    class State(NamedTuple):
        x: Any
        y: Any
        upper_state: Any

    def init(x: Any, y: Any) -> State:
        return State(x, y, upper_opt.init(x))

    def step(state: State, upper: Any, lower: Any) -> State:
        def descend(_: Any, y: Any) -> Any:
            return jax.tree.map(
                lambda w, g: w - rate * g, y, jax.grad(lower, argnums=1)(state.x, y)
            )

        y = jax.lax.fori_loop(0, STEPS_BELOW, descend, state.y)
        slope = optimizers.implicit_hypergradient(
            lambda w, x: lower(x, w), lambda w, x: upper(x, w), y, state.x, step=rate, terms=40
        )
        updates, upper_state = upper_opt.update(slope, state.upper_state, state.x)
        return State(optax.apply_updates(state.x, updates), y, upper_state)

    return Stepper(init, step)


def contenders(rate: float, upper_rate: float, steps: int) -> dict[str, Stepper]:
    """By name; `rate` is that of the lower level."""
    sgd, adam = optimizers.sgd, optimizers.adam
    conjugate = optimizers.conjugate_gradient_hypergradient(10)
    # normalised steps are as long at the last as at the first; the rate of f2sa times its
    # multiplier stays that of the lower level
    shorter = optax.cosine_decay_schedule(upper_rate, steps)
    falling = lambda count: rate / (30 + 0.1 * count)  # noqa: E731
    return {
        "no tuning": optimizers.bilevel(sgd(0.0), sgd(rate), _nothing, STEPS_BELOW),
        "bo_rep": optimizers.bo_rep(
            shorter,
            linear_rate=rate,
            lower_rate=rate,
            update_interval=1,
            lower_steps=STEPS_BELOW,
            refine_steps=200,
        ),
        "f2sa": optimizers.f2sa(
            falling, rate, upper_ratio=300.0, inner_steps=STEPS_BELOW, multiplier=30.0
        ),
        "stn": optimizers.stn(adam(upper_rate), adam(rate / 30), train_steps=STEPS_BELOW),
        "implicit_hypergradient": by_implicit_hypergradient(rate, upper_rate),
        "bilevel": optimizers.bilevel(adam(upper_rate), sgd(rate), conjugate, STEPS_BELOW),
    }


def _nothing(upper: Any, lower: Any, x: Any, solve: Any) -> tuple[Any, Any, Any]:
    """In place of a hyper-gradient: 0."""
    return jax.tree.map(jnp.zeros_like, x), *solve(x)


def trained(name: str, state: Any) -> Any:
    """The params that minimise the lower loss; the y of f2sa heeds the upper one as well."""
    return state.z if name == "f2sa" else state.y


def tune(name: str, stepper: Stepper, data: Digits, options: argparse.Namespace) -> tuple[Any, Any]:
    """The last state, and after each step the losses of both parts."""
    upper, lower = losses(data, options.decay)
    params = Model().init(jax.random.key(options.seed), data.train.images[:1])["params"]
    exponents = {layer: jnp.zeros(()) for layer in params}

    def step(state: Any, _: Any) -> tuple[Any, Any]:
        state = stepper.step(state, upper, lower)
        params = trained(name, state)
        return state, (data.train.loss(params), data.validation.loss(params))

    @jax.jit
    def run(exponents: Any, params: Any) -> Any:
        first = (upper, lower) if name == "bo_rep" else ()
        return jax.lax.scan(step, stepper.init(exponents, params, *first), length=options.steps)

    return run(exponents, params)


def plot(curves: dict[str, Any], path: Path) -> None:
    """Training and validation loss of every method, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharex=True)
    titles = ("lower level: training loss, without decay", "upper level: validation loss")
    for axes, title, part in zip(panels, titles, (0, 1), strict=True):
        for name, both in curves.items():
            plain = name == "no tuning"
            style = {"color": "k", "linewidth": 2} if plain else {"linewidth": 1.2}
            axes.semilogy(np.arange(1, len(both[part]) + 1), both[part], label=name, **style)
        axes.set(title=title, xlabel="step")
    panels[1].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--steps", type=int, default=400, metavar="N", help="default 400")
    out.add_argument("--examples", type=int, default=200, metavar="N", help="to train; default 200")
    out.add_argument(
        "--noise", type=float, default=0.3, metavar="P", help="labels drawn anew; default 0.3"
    )
    out.add_argument("--decay", type=float, default=1e-3, metavar="D", help="first; default 1e-3")
    out.add_argument("--rate", type=float, default=0.1, metavar="RATE", help="of the training")
    out.add_argument("--upper-rate", type=float, default=0.05, metavar="RATE", help="of the decays")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of parts and weights")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="also leave the curves here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    data = digits(options.examples, options.noise, options.seed)
    columns = ("decays, hidden and output", "training loss", "validation", "test", "right", "s")
    table, curves = Table("method", *columns), {}
    everything = contenders(options.rate, options.upper_rate, options.steps)
    for name, stepper in everything.items():
        start = time.perf_counter()
        state, curves[name] = jax.block_until_ready(tune(name, stepper, data, options))
        seconds = time.perf_counter() - start
        params = trained(name, state)
        decays = [float(options.decay * jnp.exp(state.x[layer])) for layer in ("hidden", "output")]
        table.add_row(
            name,
            ", ".join(f"{decay:.1e}" for decay in decays),
            *(f"{part.loss(params):.3f}" for part in data),
            f"{data.test.accuracy(params):.1%}",
            f"{seconds:.1f}",
        )
    console.print(table)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(curves, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

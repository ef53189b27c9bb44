"""Meta-trains a small learned optimizer on digits tasks, and carries it to wider models.

    python examples/meta_train.py --plot transfer.png

A task is scikit-learn's digits with pixels in another order, labels renamed and another contrast, a
network to be trained from other weights, and minibatches. `mu_lo` makes the steps of that training;
its weights move so that the losses on the way become small, by persistent evolution strategies
(unbiased however short the pieces are) or by gradients through a few steps. Then it trains models
of other widths on tasks it has not seen, with and without the width rule, beside Adam.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradchain import chain, optimizers
from gradchain.optimizers import mu_lo, mu_lo_weights, mu_lo_width_multipliers
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

BASE_WIDTH = 16
HIDDEN = 8
"""Of the learned optimizer's network."""
BATCH = 32
ADAM_RATE = 1e-2
SETTINGS = {"step_mult": 0.02, "hidden_size": HIDDEN}
WORST = 5.0
"""What a loss counts at most: a piece that diverges is bad, not infinite."""


class Task(NamedTuple):
    """What tells one task from another."""

    pixels: jax.Array
    names: jax.Array
    contrast: jax.Array
    batches: jax.Array  # a key


def draw_task(key: Any) -> Task:
    a, b, c, d = jax.random.split(key, 4)
    contrast = jnp.exp(jax.random.uniform(c, minval=-1.0, maxval=1.0))
    return Task(jax.random.permutation(a, 64), jax.random.permutation(b, 10), contrast, d)


def draw_params(key: Any, width: int) -> Any:
    """64 -> width -> width -> 10; the readout starts at the scale of the narrow model."""
    a, b, c = jax.random.split(key, 3)

    def normal(k: Any, *shape: int, scale: float) -> jax.Array:
        return scale * jax.random.normal(k, shape)

    return {
        "input": {"kernel": normal(a, 64, width, scale=64**-0.5), "bias": jnp.zeros(width)},
        "hidden": {"kernel": normal(b, width, width, scale=width**-0.5), "bias": jnp.zeros(width)},
        "output": {"kernel": normal(c, width, 10, scale=BASE_WIDTH**-0.5), "bias": jnp.zeros(10)},
    }


def loss_of(params: Any, task: Task, count: Any, data: Any) -> jax.Array:
    """On the minibatch of a step."""
    images, labels = data
    rows = jax.random.randint(jax.random.fold_in(task.batches, count), (BATCH,), 0, len(labels))
    x = task.contrast * images[rows][:, task.pixels]
    for name in ("input", "hidden"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    # of the width rule, what is the model's business
    x = x @ params["output"]["kernel"] * (BASE_WIDTH / x.shape[-1]) + params["output"]["bias"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, task.names[labels[rows]]))


class Training(NamedTuple):
    """A run of the inner training, somewhere on its way."""

    params: Any
    opt_state: Any
    count: jax.Array


def begun(opt: Any, params: Any) -> Training:
    return Training(params, opt.init(params), jnp.zeros((), jnp.int32))


def advanced(opt: Any, run: Training, task: Task, data: Any, steps: int) -> tuple[Training, Any]:
    """Some steps further, and the losses on the way."""

    def step(run: Training, _: Any) -> tuple[Training, Any]:
        value, grads = jax.value_and_grad(loss_of)(run.params, task, run.count, data)
        updates, opt_state = opt.update(grads, run.opt_state, run.params)
        params = optax.apply_updates(run.params, updates)
        return Training(params, opt_state, run.count + 1), value

    return jax.lax.scan(step, run, length=steps)


def bounded(losses: Any) -> jax.Array:
    """Their mean, with what is not finite among the worst."""
    return jnp.mean(jnp.where(losses < WORST, losses, WORST))


class Particle(NamedTuple):
    """A task in training with the weights moved one way and the other."""

    task: Task
    up: Training
    down: Training
    moved: jax.Array  # sum of the perturbations since the start of the run


class MetaTrainer:
    """The pieces of meta-training, by either estimator of the meta-gradient."""

    def __init__(self, options: argparse.Namespace, data: Any) -> None:
        self.options, self.data = options, data
        start = mu_lo_weights(HIDDEN, options.seed)
        dtype = jnp.result_type(float)
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), start)
        self.first, self.unravel = ravel_pytree(wide)
        self.opt = chain(
            optimizers.clip_by_global_norm(1.0),
            optimizers.adam(optax.cosine_decay_schedule(options.rate, options.meta_steps)),
        )

    def optimizer(self, weights: jax.Array) -> Any:
        return mu_lo(self.unravel(weights), **SETTINGS)

    def fresh(self, key: Any) -> Particle:
        a, b = jax.random.split(key)
        run = begun(self.optimizer(self.first), draw_params(b, BASE_WIDTH))
        return Particle(draw_task(a), run, run, jnp.zeros_like(self.first))

    def persistent(self, weights: jax.Array, particle: Particle, key: Any) -> Any:
        """The estimate of one particle by persistent evolution strategies, and its loss."""
        sigma, steps = self.options.sigma, self.options.truncation
        eps = sigma * jax.random.normal(key, weights.shape)

        def piece(run: Training, shift: Any) -> Any:
            opt = self.optimizer(weights + shift)
            run, losses = advanced(opt, run, particle.task, self.data, steps)
            return run, bounded(losses)

        (up, higher), (down, lower) = piece(particle.up, eps), piece(particle.down, -eps)
        moved = particle.moved + eps
        slope = moved * (higher - lower) / (2 * sigma**2)
        return slope, (higher + lower) / 2, Particle(particle.task, up, down, moved)

    def truncated(self, weights: jax.Array, particle: Particle, key: Any) -> Any:
        """The same by the gradient through the steps of this piece."""

        def piece(weights: jax.Array) -> Any:
            run, losses = advanced(
                self.optimizer(weights),
                particle.up,
                particle.task,
                self.data,
                self.options.truncation,
            )
            return bounded(losses), run

        (value, run), slope = jax.value_and_grad(piece, has_aux=True)(weights)
        return slope, value, particle._replace(up=run)

    def train(self) -> tuple[Any, Any]:
        """The weights, and the mean loss of the pieces at every meta-step."""
        options = self.options
        estimate = self.persistent if options.estimator == "pes" else self.truncated
        root = jax.random.key(options.seed + 1)

        def meta_step(carry: Any, t: Any) -> Any:
            weights, state, particles = carry
            keys = jax.random.split(jax.random.fold_in(root, t), (2, options.particles))
            found = jax.vmap(partial(estimate, weights))(particles, keys[0])
            slopes, values, particles = found
            updates, state = self.opt.update(jnp.mean(slopes, axis=0), state, weights)
            # runs end one after the other, not all at a time
            ages = particles.up.count + jnp.arange(options.particles) * options.truncation
            over = ages % options.inner_steps < options.truncation
            fresh = jax.vmap(self.fresh)(keys[1])
            particles = jax.tree.map(partial(_replaced, over), fresh, particles)
            return (optax.apply_updates(weights, updates), state, particles), jnp.mean(values)

        @jax.jit
        def run(weights: Any) -> Any:
            particles = jax.vmap(self.fresh)(jax.random.split(root, options.particles))
            carry = weights, self.opt.init(weights), particles
            return jax.lax.scan(meta_step, carry, jnp.arange(options.meta_steps))

        (weights, _, _), curve = run(self.first)
        return self.unravel(weights), np.asarray(curve)


def _replaced(over: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            _replaced(over, jax.random.key_data(new), jax.random.key_data(old))
        )
    return jnp.where(over.reshape(over.shape + (1,) * (new.ndim - 1)), new, old)


def evaluated(weights: Any, width: int, data: Any, steps: int, tasks: int) -> dict[str, Any]:
    """By what trains a model of that width, its loss at each step, the mean of other tasks."""
    narrow, wide = (
        jax.eval_shape(partial(draw_params, width=each), jax.random.key(0))
        for each in (BASE_WIDTH, width)
    )
    shapes = jax.tree.map(lambda leaf: leaf.shape, narrow)
    rule = jax.tree.map(jnp.asarray, mu_lo_width_multipliers(wide, shapes))
    ones = jax.tree.map(jnp.ones_like, rule)
    keys = jax.random.split(jax.random.key(12345), tasks)

    def trained(opt: Any, key: Any) -> Any:
        a, b = jax.random.split(key)
        training = begun(opt, draw_params(b, width))
        return advanced(opt, training, draw_task(a), data, steps)[1]

    @jax.jit
    def learned(weights: Any, multiplier: Any) -> Any:
        opt = mu_lo(weights, width_multiplier=multiplier, **SETTINGS)
        return jax.lax.map(partial(trained, opt), keys)

    adam = jax.jit(lambda: jax.lax.map(partial(trained, optimizers.adam(ADAM_RATE)), keys))
    start = jax.tree.map(jnp.asarray, mu_lo_weights(HIDDEN))
    found = {
        "adam": adam(),
        "before meta-training": learned(start, rule),
        "learned, with the width rule": learned(weights, rule),
        "learned, without": learned(weights, ones),
    }
    return {
        name: np.where(losses < WORST, losses, WORST).mean(axis=0)
        for name, losses in jax.tree.map(np.asarray, found).items()
    }


def plot(curve: Any, transfer: dict[int, dict[str, Any]], path: Path) -> None:
    """The meta-loss, and the trainings at each width, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, 1 + len(transfer), figsize=(4.5 * (1 + len(transfer)), 4), layout="constrained"
    )
    panels[0].plot(curve, linewidth=0.8)
    panels[0].set(title="meta-training", xlabel="meta-step", ylabel="mean loss of the pieces")
    for axes, (width, curves) in zip(panels[1:], transfer.items(), strict=True):
        for name, losses in curves.items():
            axes.semilogy(losses, label=name)
        axes.set(title=f"width {width}, other tasks", xlabel="step", ylabel="loss")
    panels[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = out.add_argument
    add("--estimator", choices=["pes", "truncated"], default="pes", help="of the meta-gradient")
    add("--meta-steps", type=int, default=300, metavar="N", help="default 300")
    add("--particles", type=int, default=8, metavar="N", help="tasks at a time; default 8")
    add("--inner-steps", type=int, default=80, metavar="N", help="of a training; default 80")
    add("--truncation", type=int, default=10, metavar="N", help="steps of a piece; default 10")
    add("--sigma", type=float, default=0.01, metavar="S", help="of perturbations; default 0.01")
    add("--rate", type=float, default=3e-3, metavar="RATE", help="of the weights; default 0.003")
    add("--widths", type=int, nargs="*", default=[16, 64, 128], metavar="N", help="to be tried")
    add("--tasks", type=int, default=4, metavar="N", help="on which they are tried; default 4")
    add("--seed", type=int, default=0, metavar="N", help="of all but these tasks")
    add("--plot", type=Path, metavar="FILE.png", help="also leave the curves here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    digits = load_digits()
    images, labels = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int32)
    half = len(labels) // 2
    seen, unseen = (
        tuple(map(jnp.asarray, (images[s], labels[s]))) for s in (slice(half), slice(half, None))
    )
    start = time.perf_counter()
    weights, curve = MetaTrainer(options, seen).train()
    tenth = max(1, len(curve) // 10)
    console.print(
        f"meta-training: mean loss {curve[:tenth].mean():.3f} at first, "
        f"{curve[-tenth:].mean():.3f} at last, {time.perf_counter() - start:.0f} s"
    )
    transfer = {
        width: evaluated(weights, width, unseen, options.inner_steps, options.tasks)
        for width in options.widths
    }
    table = Table("mean loss of all steps", *(f"width {width}" for width in options.widths))
    for name in transfer[options.widths[0]]:
        table.add_row(name, *(f"{curves[name].mean():.3f}" for curves in transfer.values()))
    console.print(table)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(curve, transfer, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Games, in which plain descent circles and the methods made for them arrive.

    python examples/games.py --plot games.png

A bilinear game, rock-paper-scissors on simplices, and a small GAN on a ring of Gaussians, in which
Adam gets along as well. Both players move at once, each down the gradient of its own loss.
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
from gradchain import chain, optimizers
from gradchain.transforms import scale_by_adam, scale_by_learning_rate
from gradchain.transforms.projections import keep_params_in, simplex
from rich.console import Console
from rich.table import Table

Field = Callable[[Any], Any]
MODES = 8
NOISE = 2

BILINEAR = {
    "sgd": optimizers.sgd(0.1),
    "extragradient": optimizers.extragradient(0.3),
    "past_extragradient": optimizers.past_extragradient(0.3),
    "complex_momentum": optimizers.complex_momentum(0.2, 0.8, np.pi / 3),
}
SIMPLEX = {
    "projected sgd": chain(optimizers.sgd(0.1), keep_params_in(simplex())),
    "extragradient": optimizers.extragradient(0.3, projection=simplex()),
    "reflected_gradient": optimizers.reflected_gradient(0.3, projection=simplex()),
    "mirror descent, entropy": optimizers.optimistic_mirror_descent(0.3, mirror="entropy"),
}
GAN = {
    "adam": optimizers.adam(1e-3, b1=0.5),
    "optimistic adam": chain(
        scale_by_adam(0.5, 0.999),
        optimizers.scale_by_optimistic_gradient(),
        scale_by_learning_rate(1e-3),
    ),
    "complex_adam": optimizers.complex_adam(1e-3, b1=0.6, phase=np.pi / 3),
}


def bilinear(z: Any) -> Any:
    """The field of min over x, max over y of x y; its solution is 0."""
    return {"x": z["y"], "y": -z["x"]}


def rock_paper_scissors(z: Any) -> Any:
    """Payoff of one strategy against another; the solution is to draw lots."""
    payoff = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return {"x": payoff @ z["y"], "y": -payoff.T @ z["x"]}


@partial(jax.jit, static_argnums=(0, 1, 3))
def play(opt: optax.GradientTransformationExtraArgs, field: Field, start: Any, steps: int) -> Any:
    """The points of the training loop, from the start on."""

    def step(carry: Any, _: Any) -> Any:
        z, state = carry
        updates, state = opt.update(field(z), state, z, grad_fn=field)
        return (optax.apply_updates(z, updates), state), z

    return jax.lax.scan(step, (start, opt.init(start)), length=steps)[1]


# --- the GAN --------------------------------------------------------------------------------------


def network(key: Any, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Weights of dense layers."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (n, m)) / np.sqrt(n), "b": jnp.zeros(m)}
        for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def apply(layers: list[dict[str, Any]], x: Any) -> Any:
    """A multi-layer perceptron."""
    for layer in layers[:-1]:
        x = jax.nn.leaky_relu(x @ layer["w"] + layer["b"], 0.2)
    return x @ layers[-1]["w"] + layers[-1]["b"]


def ring(key: Any, count: int) -> Any:
    """Points around eight centres on a circle."""
    which, where = jax.random.split(key)
    angle = 2 * np.pi * jax.random.randint(which, (count,), 0, MODES) / MODES
    centre = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return centre + 0.05 * jax.random.normal(where, (count, 2))


def gan_field(params: Any, key: Any, batch: int) -> Any:
    """Both players' gradients at the joint point: the non-saturating losses."""
    real_key, fake_key = jax.random.split(key)
    real, noise = ring(real_key, batch), jax.random.normal(fake_key, (batch, NOISE))

    def critic_loss(critic: Any) -> Any:
        on_real, on_fake = apply(critic, real), apply(critic, apply(params["maker"], noise))
        return jnp.mean(jax.nn.softplus(-on_real)) + jnp.mean(jax.nn.softplus(on_fake))

    def maker_loss(maker: Any) -> Any:
        return jnp.mean(jax.nn.softplus(-apply(params["critic"], apply(maker, noise))))

    return {
        "critic": jax.grad(critic_loss)(params["critic"]),
        "maker": jax.grad(maker_loss)(params["maker"]),
    }


@partial(jax.jit, static_argnums=(0, 2))
def train_gan(opt: optax.GradientTransformation, key: Any, steps: int) -> Any:
    """Samples of the trained generator."""
    maker_key, critic_key, data_key, sample_key = jax.random.split(key, 4)
    params = {
        "maker": network(maker_key, (NOISE, 64, 64, 2)),
        "critic": network(critic_key, (2, 64, 64, 1)),
    }

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        updates, state = opt.update(gan_field(params, key, 128), state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(data_key, steps)
    (params, _), _ = jax.lax.scan(step, (params, opt.init(params)), keys)
    return apply(params["maker"], jax.random.normal(sample_key, (1000, NOISE)))


def coverage(samples: Any) -> tuple[int, float]:
    """How many centres have samples near them, and which share of the samples is near one."""
    angles = 2 * np.pi * np.arange(MODES) / MODES
    centres = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gaps = np.linalg.norm(np.asarray(samples)[:, None] - centres, axis=-1)
    near = gaps.min(axis=1) < 0.2
    counts = np.bincount(gaps.argmin(axis=1)[near], minlength=MODES)
    return int((counts >= 20).sum()), float(near.mean())


# --- what is shown --------------------------------------------------------------------------------


def corners(strategies: Any) -> Any:
    """Points of the triangle for mixtures of three strategies."""
    return np.asarray(strategies) @ np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])


def plot(lines: Any, triangles: Any, clouds: Any, path: Path) -> None:
    """Trajectories of the first two games, samples of the third, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(12, 8), layout="constrained")
    for axes, title, runs in (
        (grid[0, 0], "x y", lines),
        (grid[0, 1], "rock-paper-scissors", triangles),
    ):
        for name, points in runs.items():
            axes.plot(*points.T, linewidth=1, label=name)
        axes.plot(*next(iter(runs.values()))[0], "ko", markersize=4)
        axes.set(title=title, aspect="equal")
        axes.legend(frameon=False, fontsize=8)
    grid[0, 0].set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), xlabel="x", ylabel="y")
    grid[0, 0].plot(0, 0, "k+")
    grid[0, 1].plot(*corners([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]).T, color="0.7")
    grid[0, 1].plot(*corners([[1 / 3] * 3]).T, "k+")
    grid[0, 1].axis("off")
    real = np.asarray(ring(jax.random.key(0), 1000))
    panels = [(grid[0, 2], "data", real)]
    panels += [
        (axes, f"GAN, {name}", c) for axes, (name, c) in zip(grid[1], clouds.items(), strict=True)
    ]
    for axes, title, points in panels:
        axes.scatter(*np.asarray(points).T, s=3, alpha=0.5)
        axes.set(title=title, xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--steps", type=int, default=300, metavar="N", help="of the first two games")
    out.add_argument("--gan-steps", type=int, default=2000, metavar="N", help="0 leaves it out")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of the GAN")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="leave the pictures here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    start = {"x": jnp.array(1.0), "y": jnp.array(0.5)}
    runs = {name: play(opt, bilinear, start, options.steps) for name, opt in BILINEAR.items()}
    lines = {name: np.stack([z["x"], z["y"]], axis=1) for name, z in runs.items()}
    mixed = {"x": jnp.array([0.7, 0.2, 0.1]), "y": jnp.array([0.2, 0.2, 0.6])}
    games = {
        name: play(opt, rock_paper_scissors, mixed, options.steps) for name, opt in SIMPLEX.items()
    }
    triangles = {name: corners(z["x"]) for name, z in games.items()}

    table = Table("game", "method", "distance to the solution, first", "last")
    for game, found, solution in (
        ("x y", lines, np.zeros(2)),
        ("rock-paper-scissors", triangles, corners([[1 / 3] * 3])[0]),
    ):
        for name, points in found.items():
            gaps = np.linalg.norm(points - solution, axis=1)
            table.add_row(game, name, f"{gaps[0]:.3f}", f"{gaps[-1]:.2g}")
    console.print(table)

    clouds = {}
    if options.gan_steps:
        table = Table("GAN", "centres found", "samples near a centre")
        for name, opt in GAN.items():
            clouds[name] = train_gan(opt, jax.random.key(options.seed), options.gan_steps)
            found, share = coverage(clouds[name])
            table.add_row(name, f"{found} of {MODES}", f"{share:.0%}")
        console.print(table)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        empty = np.zeros((0, 2))
        plot(lines, triangles, clouds or dict.fromkeys(GAN, empty), options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A small network solves the heat and Burgers' equations, by natural gradients and by Adam.

    python examples/heat_and_burgers.py --plot errors.png

The params of one network follow the solution in time: at every stage of a Runge-Kutta scheme they
are fitted to where the equation goes. TENG does so by natural-gradient steps in the space of the
outputs; beside it the same scheme with fits by Adam. Errors are those to the exact solutions, by
Fourier series and the transformation of Cole and Hopf. All of it in float64.
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
from gradchain import optimizers
from rich.console import Console
from rich.table import Table

VISCOSITY = 0.1
INITIAL_CUTS = (1e-3, 1e-5, 1e-7)
"""Of singular values, in the fits to the initial condition after Adam: what is far, coarsely."""


def points(count: int) -> np.ndarray:
    """A period, evenly."""
    return np.arange(count) * 2 * np.pi / count


def start(x: Any) -> Any:
    """The initial condition of both equations."""
    return np.sin(x) + 0.5 * np.cos(2 * x)


def diffused(values: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """What the heat equation makes of values over a period, and its slope in space."""
    k = np.fft.fftfreq(len(values), 1 / len(values))
    waves = np.fft.fft(values) * np.exp(-VISCOSITY * k**2 * t)
    return np.fft.ifft(waves).real, np.fft.ifft(1j * k * waves).real


def exact_heat(t: float, count: int) -> np.ndarray:
    return diffused(start(points(count)), t)[0]


def exact_burgers(t: float, count: int) -> np.ndarray:
    """By u = -2 nu d/dx log phi, with phi a solution of the heat equation."""
    fine = 8
    x = points(fine * count)
    potential = 1 - np.cos(x) + 0.25 * np.sin(2 * x)  # its slope is the initial condition
    phi, slope = diffused(np.exp(-potential / (2 * VISCOSITY)), t)
    return (-2 * VISCOSITY * slope / phi)[::fine]


class Equation(NamedTuple):
    """du/dt = operator(u), and its solution."""

    operator: Callable[[Any, Any], Any]
    exact: Callable[[float, int], np.ndarray]


def heat(u: Any, x: Any) -> Any:
    return VISCOSITY * jax.grad(jax.grad(u))(x)


def burgers(u: Any, x: Any) -> Any:
    return heat(u, x) - u(x) * jax.grad(u)(x)


EQUATIONS = {"heat": Equation(heat, exact_heat), "Burgers": Equation(burgers, exact_burgers)}


def initial_params(width: int, seed: int) -> dict[str, jax.Array]:
    """Of two hidden layers; the first has features of period 2 pi."""
    keys = jax.random.split(jax.random.key(seed), 5)
    draw = jax.random.normal
    return {
        "amplitude": draw(keys[0], (width,)),
        "phase": 3 * draw(keys[1], (width,)),
        "shift": draw(keys[2], (width,)) / 2,
        "hidden": draw(keys[3], (width, width)) / width**0.5,
        "bias": jnp.zeros(width),
        "output": draw(keys[4], (width,)) / width**0.5,
    }


def network(params: Any, x: Any) -> Any:
    features = jnp.tanh(params["amplitude"] * jnp.cos(x + params["phase"]) + params["shift"])
    hidden = jnp.tanh(jnp.matmul(features, params["hidden"]) + params["bias"])
    return jnp.vdot(hidden, params["output"])


def values(params: Any, x: Any) -> Any:
    return jax.vmap(network, (None, 0))(params, x)


def fit_by_adam(params: Any, target: Any, x: Any, rate: float, steps: int) -> Any:
    opt = optimizers.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        grads = jax.grad(lambda p: jnp.mean((values(p, x) - target) ** 2))(params)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, opt.init(params)), length=steps)[0][0]


def heun_by_adam(operator: Any, dt: float, rate: float, steps: int) -> Any:
    """A step of Heun's scheme whose two fits are runs of Adam."""

    def step(params: Any, x: Any) -> Any:
        slopes = lambda p: jax.vmap(lambda at: operator(lambda y: network(p, y), at))(x)  # noqa: E731
        here, first = values(params, x), slopes(params)
        params = fit_by_adam(params, here + dt * first, x, rate, steps)
        return fit_by_adam(params, here + dt / 2 * (first + slopes(params)), x, rate, steps)

    return step


def solve(equation: Equation, options: argparse.Namespace) -> dict[str, tuple[np.ndarray, float]]:
    """By name the values after each step, and the seconds that they took."""
    x = jnp.asarray(points(options.points))
    steps = round(options.time / options.time_step)

    @jax.jit
    def begun(params: Any) -> Any:
        target = start(np.asarray(x))
        params = fit_by_adam(params, target, x, 1e-2, options.pretraining)
        for cut in INITIAL_CUTS:
            params = optimizers.teng_step(network, params, target, x, rcond=cut)
        return params

    stepper = optimizers.teng(
        network,
        equation.operator,
        options.time_step,
        options.integrator,
        options.inner_iters,
        options.rcond,
    )
    by_adam = heun_by_adam(
        equation.operator, options.time_step, options.adam_rate, options.adam_steps
    )

    @jax.jit
    def run_teng(params: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            state = stepper.step(state, x)
            return state, values(state.params, x)

        return jax.lax.scan(step, stepper.init(params), length=steps)[1]

    @jax.jit
    def run_adam(params: Any) -> Any:
        def step(params: Any, _: Any) -> Any:
            params = by_adam(params, x)
            return params, values(params, x)

        return jax.lax.scan(step, params, length=steps)[1]

    params = begun(initial_params(options.width, options.seed))
    found = {}
    for name, run in (("teng", run_teng), ("adam", run_adam)):
        begin = time.perf_counter()
        found[name] = np.asarray(run(params)), time.perf_counter() - begin
    return found


def errors(equation: Equation, found: np.ndarray, time_step: float) -> np.ndarray:
    """Relative to the exact solution, in the mean square over space, after each step."""
    out = []
    for i, u in enumerate(found, start=1):
        exact = equation.exact(i * time_step, len(u))
        out.append(np.linalg.norm(u - exact) / np.linalg.norm(exact))
    return np.array(out)


def plot(curves: dict[str, dict[str, np.ndarray]], time_step: float, path: Path) -> None:
    """Errors in time, a panel for each equation, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(11, 4.5), layout="constrained")
    for axes, (title, of_methods) in zip(panels, curves.items(), strict=True):
        for name, error in of_methods.items():
            axes.semilogy(time_step * np.arange(1, len(error) + 1), error, label=name)
        axes.set(title=f"{title} equation", xlabel="time", ylabel="relative error")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = out.add_argument
    add("--time", type=float, default=1.0, metavar="T", help="until when; default 1")
    add("--time-step", type=float, default=0.02, metavar="T", help="default 0.02")
    add("--integrator", choices=["euler", "heun", "rk4"], default="rk4", help="of TENG")
    add("--inner-iters", type=int, default=5, metavar="N", help="of each fit of TENG; default 5")
    add("--rcond", type=float, default=1e-6, metavar="R", help="cut of each fit; default 1e-6")
    add("--adam-steps", type=int, default=300, metavar="N", help="of each fit of Adam; default 300")
    add("--adam-rate", type=float, default=1e-3, metavar="RATE", help="default 0.001")
    add("--pretraining", type=int, default=2000, metavar="N", help="steps of Adam at the start")
    add("--width", type=int, default=16, metavar="N", help="of the network; default 16")
    add("--points", type=int, default=96, metavar="N", help="in space; default 96")
    add("--seed", type=int, default=0, metavar="N", help="of the first params")
    add("--plot", type=Path, metavar="FILE.png", help="also leave the errors in time here")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    console = Console()
    table = Table("equation", "method", "error at the first step", "at the end", "seconds")
    curves: dict[str, dict[str, np.ndarray]] = {}
    with jax.enable_x64(True):
        for title, equation in EQUATIONS.items():
            curves[title] = {}
            for name, (found, seconds) in solve(equation, options).items():
                error = errors(equation, found, options.time_step)
                curves[title][name] = error
                table.add_row(title, name, f"{error[0]:.1e}", f"{error[-1]:.1e}", f"{seconds:.1f}")
    console.print(table)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(curves, options.time_step, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
